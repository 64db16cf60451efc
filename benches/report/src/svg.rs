//! Two kinds of picture: bars in groups, and labelled points.

use std::fmt::Write as _;

/// What is ours, a peer, a floor.
const COLOURS: [&str; 3] = ["#2f6fb5", "#b9c4cf", "#e7c56b"];

fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A bar: its name, its value, and which colour.
pub(crate) type Bar = (String, f64, usize);

/// Horizontal bars on a logarithmic scale, a group for each work.
pub(crate) struct Bars {
    title: String,
    groups: Vec<(String, Vec<Bar>)>,
}

impl Bars {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: title.into(), groups: Vec::new() }
    }

    /// The bars of one group.
    pub(crate) fn group(&mut self, name: &str, bars: Vec<Bar>) {
        self.groups.push((name.into(), bars));
    }

    pub(crate) fn draw(&self) -> String {
        const LEFT: f64 = 190.0;
        const WIDTH: f64 = 560.0;
        let values = || self.groups.iter().flat_map(|(_, bars)| bars.iter().map(|bar| bar.1));
        let (low, high) = (values().fold(f64::INFINITY, f64::min).max(0.1), values().fold(1.0, f64::max));
        let (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
        let x = |value: f64| LEFT + WIDTH * (value.max(low) / low).ln() / (high / low).ln();
        let rows: usize = self.groups.iter().map(|(_, bars)| bars.len() + 2).sum();
        let height = 60.0 + 14.0 * rows as f64;
        let mut svg = open(LEFT + WIDTH + 70.0, height, &self.title);
        let mut tick = low;
        while tick <= high * 1.001 {
            let at = x(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"36\" x2=\"{at:.1}\" y2=\"{:.0}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"46\" \
                 fill=\"#888\" text-anchor=\"middle\">{tick}</text>",
                height - 8.0
            );
            tick *= 10.0;
        }
        let mut y = 64.0;
        for (name, bars) in &self.groups {
            let _ =
                writeln!(svg, "<text x=\"16\" y=\"{y:.0}\" font-weight=\"bold\">{}</text>", escaped(name));
            for (bar, value, kind) in bars {
                y += 14.0;
                let (width, colour) = ((x(*value) - LEFT).max(1.0), COLOURS[*kind]);
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.0}\" y=\"{y:.0}\" text-anchor=\"end\">{}</text><rect x=\"{LEFT}\" y=\"{:.0}\" \
                     width=\"{width:.1}\" height=\"10\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y:.0}\" fill=\"#444\">{value:.1}</text>",
                    LEFT - 6.0,
                    escaped(bar),
                    y - 9.0,
                    LEFT + width + 4.0
                );
            }
            y += 28.0;
        }
        svg + "</svg>\n"
    }
}

/// Labelled points, both axes logarithmic.
pub(crate) struct Points {
    title: String,
    points: Vec<(String, f64, f64, bool)>,
}

impl Points {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: title.into(), points: Vec::new() }
    }

    pub(crate) fn point(&mut self, name: &str, ratio: f64, speed: f64, ours: bool) {
        self.points.push((name.into(), ratio, speed, ours));
    }

    pub(crate) fn draw(&self) -> String {
        const LEFT: f64 = 60.0;
        const TOP: f64 = 50.0;
        const WIDTH: f64 = 660.0;
        const HEIGHT: f64 = 420.0;
        let (mut ratios, mut speeds) = ((1.0f64, 1.0f64), (1.0f64, 1.0f64));
        for (_, ratio, speed, _) in &self.points {
            ratios = (ratios.0.min(*ratio), ratios.1.max(*ratio));
            speeds = (speeds.0.min(*speed), speeds.1.max(*speed));
        }
        let (ratios, speeds) = ((ratios.0 * 0.95, ratios.1 * 1.1), (speeds.0 * 0.8, speeds.1 * 1.25));
        let place = |value: f64, (low, high): (f64, f64)| (value / low).ln() / (high / low).ln();
        let x = |ratio: f64| LEFT + WIDTH * place(ratio, ratios);
        let y = |speed: f64| TOP + HEIGHT * (1.0 - place(speed, speeds));
        let mut svg = open(LEFT + WIDTH + 40.0, TOP + HEIGHT + 50.0, &self.title);
        for tick in [0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0]
            .into_iter()
            .filter(|t| *t > ratios.0 && *t < ratios.1)
        {
            let at = x(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.0}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.0}\" \
                 fill=\"#888\" text-anchor=\"middle\">{tick}</text>",
                TOP + HEIGHT,
                TOP + HEIGHT + 16.0
            );
        }
        for tick in [0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0]
            .into_iter()
            .filter(|t| *t > speeds.0 && *t < speeds.1)
        {
            let at = y(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.0}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" \
                 fill=\"#888\" text-anchor=\"end\">{tick}</text>",
                LEFT + WIDTH,
                LEFT - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">ratio</text><text x=\"14\" y=\"{:.0}\" \
             transform=\"rotate(-90 14 {:.0})\" text-anchor=\"middle\">speed</text>",
            LEFT + WIDTH / 2.0,
            TOP + HEIGHT + 36.0,
            TOP + HEIGHT / 2.0,
            TOP + HEIGHT / 2.0
        );
        for (name, ratio, speed, ours) in &self.points {
            let colour = COLOURS[usize::from(!ours)];
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x(*ratio),
                y(*speed),
                x(*ratio) + 8.0,
                y(*speed) + 4.0,
                escaped(name)
            );
        }
        svg + "</svg>\n"
    }
}
