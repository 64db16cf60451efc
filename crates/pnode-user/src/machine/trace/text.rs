//! A trace as text: for people, as a table, and line by line for programs.

use core::fmt::{self, Write};

use super::{Event, Trace, Why};

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8}  {:<10}", self.number, self.what.name())?;
        match self.node {
            Some(node) => write!(f, "node {:<3}", node.get())?,
            None => write!(f, "{:8}", "")?,
        }
        match self.pfn {
            Some(pfn) => write!(f, "pfn {:<#11x}", pfn.get())?,
            None => write!(f, "{:15}", "")?,
        }
        write!(f, "{:>6}  ", self.count)?;
        match self.why {
            Why::Gate(denied) => denied.fmt(f),
            why => f.write_str(why.name()),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lost > 0 {
            writeln!(f, "{} older events were lost; keep more", self.lost)?;
        }
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl Trace {
    /// The first line of [`Trace::to_csv`].
    pub const CSV_HEAD: &'static str = "number,what,node,pfn,count,why,time";

    /// One line an event, with commas between its fields and a line of their names above. What an event does not have is
    /// empty. Names and order of the fields stay as they are; new ones are added at the end.
    pub fn to_csv(&self) -> String {
        let mut text = format!("{}\n", Self::CSV_HEAD);
        for event in &self.events {
            let Event { number, what, why, node, pfn, count, time } = event;
            let node = node.map(|node| node.get().to_string()).unwrap_or_default();
            let pfn = pfn.map(|pfn| pfn.get().to_string()).unwrap_or_default();
            let _ = writeln!(text, "{number},{},{node},{pfn},{count},{},{time}", what.name(), why.name());
        }
        text
    }

    /// One JSON object a line and event, with the fields of [`Trace::to_csv`]. What an event does not have is left out.
    pub fn to_json_lines(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            let _ = write!(text, r#"{{"number":{},"what":"{}""#, event.number, event.what.name());
            if let Some(node) = event.node {
                let _ = write!(text, r#","node":{}"#, node.get());
            }
            if let Some(pfn) = event.pfn {
                let _ = write!(text, r#","pfn":{}"#, pfn.get());
            }
            let _ = write!(text, r#","count":{},"why":"{}""#, event.count, event.why.name());
            let _ = writeln!(text, r#","time":{}}}"#, event.time);
        }
        text
    }
}
