//! What a kernel's background threads do: keeping some memory free, and bringing hot pages back.
//!
//! Both are steps that a test takes by hand, in the order that it likes; [`Machine::background`] has a thread take them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pnode_core::{Denied, NodeId, Reason, Watermarks};

use super::region::Page;
use super::trace::Why;
use super::{Machine, Shared};

/// How many frames of a node are to be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepFree {
    /// Below so many, reclaim begins.
    pub low: u64,
    /// At so many, it ends.
    pub high: u64,
}

/// What a node's watermarks ask of reclaim: it begins below low, and rests at high.
impl From<Watermarks> for KeepFree {
    fn from(marks: Watermarks) -> Self {
        Self { low: marks.low(), high: marks.high() }
    }
}

/// A thread that takes the steps of [`Machine::background`] until it is dropped.
#[must_use = "the thread ends when this is dropped"]
#[derive(Debug)]
pub struct Background {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// One step of reclaim in the background: if fewer than `keep.low` frames of `node` are free, looks for cold pages until
    /// `keep.high` are, or no more are found. Returns how many pages moved.
    pub fn balance(&self, node: NodeId, keep: KeepFree) -> usize {
        self.shared.balance(node, keep)
    }

    /// One step of promotion: moves up to `pages` pages of private node `node` that were touched since [`Machine::age`] to
    /// ordinary memory. Returns how many moved. Pages that it cannot have at once, or that find no memory, stay.
    ///
    /// # Errors
    ///
    /// [`Denied`] if the node did not open `PROMOTION`.
    pub fn promote_hot(&self, node: NodeId, pages: usize) -> Result<usize, Denied> {
        self.shared.promote_hot(node, pages)
    }

    /// What [`Machine::background`] does each time, done once by the caller: a step of [`Machine::balance`] or of
    /// [`Machine::promote_hot`] for each node. A node that has watermarks of its own
    /// ([`NodeSpec::watermarks`](super::NodeSpec::watermarks)) is kept between those; `keep` is for the others.
    pub fn background_step(&self, keep: KeepFree) {
        self.shared.background_step(keep);
    }

    /// Starts a thread that takes a step of [`Machine::balance`] for every ordinary node, and one of
    /// [`Machine::promote_hot`] for every private node that opened it, each time `pause` has passed. A node's own
    /// watermarks go before `keep`, as in [`Machine::background_step`].
    ///
    /// # Errors
    ///
    /// The error of starting a thread.
    pub fn background(&self, keep: KeepFree, pause: Duration) -> std::io::Result<Background> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let thread = thread::Builder::new().name("pnode-background".into()).spawn({
            let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&stop));
            move || {
                let (stopped, changed) = &*stop;
                let mut stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
                while !*stopped {
                    drop(stopped);
                    shared.background_step(keep);
                    stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
                    if !*stopped {
                        let waited = changed.wait_timeout(stopped, pause);
                        stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                }
            }
        })?;
        Ok(Background { stop, thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let (stopped, changed) = &*self.stop;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn background_step(&self, keep: KeepFree) {
        const BATCH: usize = 64;
        for site in &self.sites {
            if site.is_private() {
                // Most have not opened the door, and one that is leaving has shut it.
                let _ = self.promote_hot(site.node, BATCH);
            } else {
                let own = site.marks != Watermarks::NONE;
                self.balance(site.node, if own { site.marks.into() } else { keep });
            }
        }
    }

    fn balance(&self, node: NodeId, keep: KeepFree) -> usize {
        const BATCH: u64 = 32;
        let Some(site) = self.site(node) else { return 0 };
        let mut free = site.free_frames();
        if free >= keep.low {
            return 0;
        }
        let mut moved = 0;
        while free < keep.high.min(site.memory()) {
            let pages = self.reclaim((keep.high - free).min(BATCH) as usize);
            moved += pages;
            let now = site.free_frames();
            // What was found was on other nodes, or somebody takes more than there is to be found.
            if pages == 0 || now <= free {
                break;
            }
            free = now;
        }
        moved
    }

    fn promote_hot(&self, node: NodeId, pages: usize) -> Result<usize, Denied> {
        let grant = self.gate(node, self.nodes.grant(node, Reason::Promotion))?;
        let mut moved = 0;
        for region in self.live_regions() {
            for (page, cell) in region.pages.iter().enumerate() {
                if moved >= pages {
                    break;
                }
                let Ok(mut cell) = cell.try_lock() else { continue };
                if cell.node() == Some(node) && cell.referenced {
                    let is_there = |page: &Page| page.node() == Some(node);
                    let promoted = region.promote_huge_or_page(page, &mut cell, Why::Hot, is_there);
                    let promoted = promoted.unwrap_or(0);
                    self.counters.promoted_hot.add(promoted as u64);
                    moved += promoted;
                }
            }
        }
        drop(grant);
        Ok(moved)
    }
}
