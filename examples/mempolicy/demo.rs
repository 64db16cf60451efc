//! What each policy does on this machine, and what it must do.

use std::fmt::Write;

use pnode::core::policy::{Mode, PlaceError, PolicyError};
use pnode::core::{AllocError, Features, NodeId, NodeMask, PageOrigin, Request};

use crate::cli::{ensure, say};
use crate::host::{Host, Process};

/// One bar of the picture: the policy, and how many pages are where.
type Bar = (String, Vec<(NodeId, usize)>);

/// Shows every policy; gives the picture's bars.
pub(crate) fn run(host: &Host<'_>, pages: usize) -> Result<Vec<Bar>, String> {
    let mut show = Show { host, pages, bars: Vec::new() };
    let ordinary = host.ordinary();
    let near = ordinary.first().ok_or("the machine has no ordinary node; add one")?;
    let opened = |node: &NodeId| {
        let (_, spec) = host.file.nodes().nth(node.index())?;
        (spec.is_private() && spec.advertised().is_none()).then(|| spec.doors().contains(Features::USER_NUMA))
    };
    let open = host.ids().find(|node| opened(node) == Some(true));
    // Of those that are closed to users, one with every door shut shows it best.
    let closed = || host.ids().filter(|node| host.is_private(*node) && opened(node) != Some(true));
    let doors = |node: &NodeId| host.file.nodes().nth(node.index()).map(|(_, spec)| spec.doors());
    let shut = closed().find(|node| doors(node) == Some(Features::NONE)).or_else(|| closed().next());

    show.lands("no policy", Mode::Default, NodeMask::EMPTY, |places| {
        places.iter().all(|(node, _)| *node == near)
    })?;
    let last = ordinary.iter().last().unwrap_or(near);
    let only = |node: NodeId| move |places: &[(NodeId, usize)]| places.iter().all(|(on, _)| *on == node);
    show.lands(&format!("--membind {}", host.name(last)), Mode::Bind, NodeMask::of(last), only(last))?;
    show.lands(&format!("--preferred {}", host.name(last)), Mode::Preferred, NodeMask::of(last), only(last))?;
    let count = ordinary.len();
    show.lands("--interleave all", Mode::Interleave, NodeMask::ALL, |places| {
        // In turn, over the ordinary nodes and no private one: none is more than one page ahead.
        let share = pages / count;
        let fair =
            places.iter().all(|(node, on)| ordinary.contains(*node) && (share..=share + 1).contains(on));
        fair && places.len() == count.min(pages)
    })?;
    show.weighted(&ordinary)?;
    if let Some(open) = open {
        let name = host.name(open).to_owned();
        show.lands(&format!("--membind {name}"), Mode::Bind, NodeMask::of(open), only(open))?;
        show.spill(open)?;
        show.moves(near, open)?;
        show.cache(open)?;
    } else {
        println!("(no private node opened USER_NUMA: binds to one are not shown)");
    }
    match shut {
        Some(shut) => show.closed(near, shut)?,
        None => println!("(every private node opened USER_NUMA: a closed one is not shown)"),
    }
    for (name, mask) in host.file.cpusets() {
        show.cpuset(name, mask, near)?;
    }
    Ok(show.bars)
}

struct Show<'s, 'h> {
    host: &'s Host<'h>,
    pages: usize,
    bars: Vec<Bar>,
}

impl<'s, 'h> Show<'s, 'h> {
    fn process(&self) -> Result<Process<'s, 'h>, String> {
        let cpu = self.host.ordinary().first().ok_or("the machine has no ordinary node; add one")?;
        Process::new(self.host, cpu)
    }

    /// Touches pages under a policy and prints where they are, which must be as `must` says.
    fn lands(
        &mut self,
        what: &str,
        mode: Mode,
        nodes: NodeMask,
        must: impl Fn(&[(NodeId, usize)]) -> bool,
    ) -> Result<(), String> {
        let mut process = self.process()?;
        process.set_policy(mode, nodes, PageOrigin::PrivateAnonymous).map_err(say)?;
        process.touch(self.pages).map_err(|error| format!("{what}: {error}"))?;
        println!("{what:<28} {}", process.numa_maps());
        let places: Vec<_> = process.places().into_iter().collect();
        let holds = must(&places);
        process.exit()?;
        self.bars.push((what.to_owned(), places));
        ensure(holds, &format!("{what}: the pages are not where the policy says"))
    }

    /// Twice as many pages on each node as on the one before it.
    fn weighted(&mut self, ordinary: &NodeMask) -> Result<(), String> {
        let mut weights = vec![1u8; self.host.ids().count()];
        let mut named = Vec::new();
        for (step, node) in ordinary.iter().enumerate() {
            weights[node.index()] = 1 << step.min(3);
            named.push(format!("{}={}", self.host.name(node), weights[node.index()]));
        }
        let what = format!("--weighted {}", named.join(","));
        let mut process = self.process()?;
        process.weights = weights.clone();
        process.set_policy(Mode::WeightedInterleave, *ordinary, PageOrigin::PrivateAnonymous).map_err(say)?;
        // Whole rounds, so that the shares are exact.
        let round: usize = ordinary.iter().map(|node| usize::from(weights[node.index()])).sum();
        let rounds = (self.pages / round).max(1);
        process.touch(rounds * round).map_err(|error| format!("{what}: {error}"))?;
        println!("{what:<28} {}", process.numa_maps());
        let places = process.places();
        let exact = ordinary.iter().all(|node| {
            places.get(&node).copied().unwrap_or(0) == rounds * usize::from(weights[node.index()])
        });
        process.exit()?;
        self.bars.push((what, places.into_iter().collect()));
        ensure(exact, "the weights are not the shares")
    }

    /// One page more than the node has.
    fn spill(&mut self, node: NodeId) -> Result<(), String> {
        let mut process = self.process()?;
        process.set_policy(Mode::Bind, NodeMask::of(node), PageOrigin::PrivateAnonymous).map_err(say)?;
        let before: u64 = self.host.ordinary().iter().map(|node| self.host.free(node)).sum();
        let free = self.host.free(node) as usize;
        process.touch(free).map_err(say)?;
        let refused = process.touch(1);
        let after: u64 = self.host.ordinary().iter().map(|node| self.host.free(node)).sum();
        match refused {
            Err(error @ PlaceError::BoundNodesFull { .. }) => {
                println!("{:<28} refused: {error}", format!("  {} pages and one more", free));
            }
            other => return Err(format!("a bind to a full node came to {other:?}")),
        }
        process.exit()?;
        ensure(before == after, "a full bind took ordinary memory")
    }

    /// Pages move to a private node that is open to users, and back, with their bytes.
    fn moves(&mut self, near: NodeId, open: NodeId) -> Result<(), String> {
        let mut process = self.process()?;
        process.touch(self.pages).map_err(say)?;
        for to in [open, near] {
            let (moved, error) = process.move_to(to);
            ensure(error.is_none() && moved == self.pages, "a page that may move did not")?;
            println!("{:<28} {}", format!("move_pages to {}", self.host.name(to)), process.numa_maps());
        }
        process.exit()
    }

    /// A file's pages cannot be bound to a private node, and a task's bind does not count for them.
    fn cache(&mut self, open: NodeId) -> Result<(), String> {
        let mut process = self.process()?;
        let name = self.host.name(open);
        match process.set_policy(Mode::Bind, NodeMask::of(open), PageOrigin::PageCache) {
            Err(error @ PolicyError::PageCache { .. }) => {
                println!("{:<28} refused: {error}", format!("--file --membind {name}"));
            }
            other => return Err(format!("page cache was bound to a private node: {other:?}")),
        }
        process.exit()
    }

    /// A node whose owner opened nothing: a bind, a move there, and interleaving over it.
    fn closed(&mut self, near: NodeId, shut: NodeId) -> Result<(), String> {
        let name = self.host.name(shut).to_owned();
        let mut process = self.process()?;
        match process.set_policy(Mode::Bind, NodeMask::of(shut), PageOrigin::PrivateAnonymous) {
            Err(error @ PolicyError::NotConsenting { .. }) => {
                println!("{:<28} refused: {error}", format!("--membind {name}"));
            }
            other => return Err(format!("a bind to a closed node came to {other:?}")),
        }
        process.touch(4).map_err(say)?;
        let before = self.host.free(shut);
        match process.move_to(shut) {
            (0, Some(error)) => println!("{:<28} refused: {error}", format!("move_pages to {name}")),
            other => return Err(format!("pages moved to a closed node: {other:?}")),
        }
        process.exit()?;
        let insisting = Request::page().prefer(shut).this_node_only();
        match self.host.nodes.alloc(insisting) {
            Err(error @ AllocError::Private { .. }) => {
                println!("{:<28} refused: {error}", "a request without a grant")
            }
            other => return Err(format!("a request reached a private node without a grant: {other:?}")),
        }
        ensure(self.host.free(shut) == before, "a closed node gave a frame")?;
        let grant = self.host.owner_grant(shut)?;
        let frame = grant.alloc(Request::page()).map_err(say)?;
        println!("{:<28} got {} of {name}", "the owner, by its grant", frame.pfn());
        ensure(frame.node() == shut, "a grant led elsewhere")?;
        self.host.nodes.free(frame).map_err(say)?;
        drop(grant);
        self.lands(
            &format!("--preferred {}", self.host.name(near)),
            Mode::Preferred,
            NodeMask::of(near),
            |places| places.iter().all(|(node, _)| *node != shut),
        )
    }

    /// A cpuset narrows what a policy names; private nodes that it does not list are out.
    fn cpuset(&mut self, name: &str, mask: &NodeMask, cpu: NodeId) -> Result<(), String> {
        let mut process = Process::new(self.host, cpu)?;
        process.mems = process.mems.child(mask);
        process.set_policy(Mode::Interleave, NodeMask::ALL, PageOrigin::PrivateAnonymous).map_err(say)?;
        process.touch(self.pages).map_err(say)?;
        let what = format!("--cpuset {name} --interleave all");
        println!("{what:<28} {}", process.numa_maps());
        let places: Vec<_> = process.places().into_iter().collect();
        let inside = places.iter().all(|(node, _)| process.mems.ordinary().contains(*node));
        process.exit()?;
        self.bars.push((what, places));
        ensure(inside, "a page is outside the cpuset")
    }
}

const COLORS: [&str; 8] =
    ["#0072b2", "#56b4e9", "#d55e00", "#cc79a7", "#e69f00", "#009e73", "#8a94a3", "#f0e442"];

/// The bars as one picture: where the pages of each policy are.
pub(crate) fn svg(host: &Host<'_>, bars: &[Bar]) -> String {
    let height = 92 + bars.len() * 30;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 960 {height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='960' height='{height}' fill='white'/>\n\
         <text x='20' y='28' font-size='18'>Where pages land, policy by policy</text>\n"
    );
    for (index, node) in host.ids().enumerate() {
        let (x, color) = (20 + index * 130, COLORS[index % COLORS.len()]);
        let kind = if host.is_private(node) { " (private)" } else { "" };
        let _ = writeln!(
            out,
            "<rect x='{x}' y='44' width='14' height='10' fill='{color}'/><text x='{}' y='53'>{}{kind}</text>",
            x + 20,
            host.name(node),
        );
    }
    for (row, (what, places)) in bars.iter().enumerate() {
        let y = 72 + row * 30;
        let all: usize = places.iter().map(|(_, pages)| pages).sum();
        let _ = writeln!(out, "<text x='20' y='{}'>{what}</text>", y + 15);
        let mut x = 300.0;
        for (node, pages) in places {
            let width = 620.0 * *pages as f64 / all.max(1) as f64;
            let color = COLORS[node.index() % COLORS.len()];
            let _ = writeln!(
                out,
                "<rect x='{x:.1}' y='{y}' width='{width:.1}' height='22' fill='{color}'/>\
                 <text x='{:.1}' y='{}' text-anchor='middle' fill='white'>{pages}</text>",
                x + width / 2.0,
                y + 15,
            );
            x += width;
        }
    }
    out.push_str("</svg>\n");
    out
}
