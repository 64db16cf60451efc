//! The machine that an example runs on: its own, or one that `--machine FILE` describes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use pnode::buddy::Zone;
use pnode::core::{NodeId, Pfn};
use pnode::user::{Machine, MachineFile, NodeSpec};

/// A machine as a text describes it, and where that text is.
pub(crate) struct Described {
    pub(crate) file: MachineFile,
    path: Option<PathBuf>,
}

impl Described {
    /// The example's own machine.
    pub(crate) fn own(text: &str) -> Result<Self, String> {
        let file = text.parse().map_err(|error| format!("the example's own machine: {error}"))?;
        Ok(Self { file, path: None })
    }

    /// The machine of a file.
    pub(crate) fn read(path: &OsStr) -> Result<Self, String> {
        let path = Path::new(path);
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{} cannot be read ({error})", path.display()))?;
        let file = text.parse().map_err(|error: pnode::user::machine_file::MachineFileError| {
            format!("{}, {}", path.display(), error.in_text(&text))
        })?;
        Ok(Self { file, path: Some(path.into()) })
    }

    pub(crate) fn build(&self) -> Result<Machine, String> {
        self.file.builder().build().map_err(|error| self.about(&error.to_string()))
    }

    /// The first node that suits, which the example calls `what`.
    pub(crate) fn role(
        &self,
        what: &str,
        suits: impl Fn(&NodeSpec) -> bool,
        line: &str,
    ) -> Result<NodeId, String> {
        self.file
            .find(suits)
            .ok_or_else(|| self.about(&format!("this example needs {what}; add a line as: {line}")))
    }

    /// The first ordinary node.
    pub(crate) fn ordinary(&self) -> Result<NodeId, String> {
        self.role("an ordinary node", |spec| !spec.is_private(), "node dram ordinary 16MiB")
    }

    /// Frames of all ordinary nodes.
    pub(crate) fn ordinary_frames(&self) -> usize {
        self.file.nodes().filter(|(_, spec)| !spec.is_private()).map(|(_, spec)| spec.frames() as usize).sum()
    }

    /// The ids of all nodes, from 0.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.file.nodes().filter_map(|(name, _)| self.file.node(name)).collect()
    }

    /// The distances of all nodes from all, row by row.
    pub(crate) fn distances(&self) -> Vec<u8> {
        let ids = self.ids();
        ids.iter().flat_map(|from| ids.iter().map(|to| self.file.distance(*from, *to))).collect()
    }

    /// The zones of each node, for examples that are not on the harness; no two have a frame in common. They are to come
    /// online in this order: the highest of a node first.
    pub(crate) fn zones(&self) -> Result<Vec<Vec<Zone<'static>>>, String> {
        let zones = |(number, (_, spec)): (u64, (&str, &NodeSpec))| {
            let zones = spec.zones_at(Pfn::new(number << 32)).map_err(say)?;
            Ok(zones.into_iter().rev().map(|(zone, _)| zone).collect())
        };
        (0..).zip(self.file.nodes()).map(zones).collect()
    }

    /// A sentence about the machine, with the file that it is in.
    pub(crate) fn about(&self, sentence: &str) -> String {
        match &self.path {
            Some(path) => format!("{}: {sentence}", path.display()),
            None => sentence.to_owned(),
        }
    }
}

/// Any error as the sentence that it prints as.
fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}
