//! What kind of memory a node is made of.

use core::fmt;

/// The one class of a node's memory, with the coordinates by which tiers are ordered.
///
/// A device with two kinds of memory has two nodes. The coordinates are what firmware tables (ACPI HMAT) or a driver
/// state for an unloaded access from the nearest CPU; they order tiers and are never used as a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryClass {
    name: &'static str,
    latency_ns: u32,
    bandwidth_mib_s: u32,
}

impl MemoryClass {
    /// Ordinary memory beside a CPU.
    pub const DRAM: Self = Self::new("dram", 100, 50_000);
    /// Memory in the package, faster than DRAM.
    pub const HBM: Self = Self::new("hbm", 90, 400_000);
    /// Message and packet buffers on a device.
    pub const DEVICE_BUFFER: Self = Self::new("device-buffer", 400, 16_000);
    /// Coherent memory of an accelerator.
    pub const ACCELERATOR: Self = Self::new("accelerator", 300, 200_000);
    /// A slow far tier behind a link.
    pub const FAR: Self = Self::new("far", 500, 20_000);
    /// Memory behind a compressing device, or compressed by software.
    pub const COMPRESSED: Self = Self::new("compressed", 1_000, 10_000);

    /// A class called `name`; `latency_ns` in nanoseconds, `bandwidth_mib_s` in MiB a second.
    pub const fn new(name: &'static str, latency_ns: u32, bandwidth_mib_s: u32) -> Self {
        Self { name, latency_ns, bandwidth_mib_s }
    }

    /// The name, for people.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The latency of an unloaded access, in nanoseconds.
    pub const fn latency_ns(self) -> u32 {
        self.latency_ns
    }

    /// The bandwidth, in MiB a second.
    pub const fn bandwidth_mib_s(self) -> u32 {
        self.bandwidth_mib_s
    }
}

impl fmt::Debug for MemoryClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} ns, {} MiB/s)", self.name, self.latency_ns, self.bandwidth_mib_s)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use super::*;

    #[test]
    fn a_class_says_what_it_was_made_of() {
        let class = MemoryClass::new("tape", 7_000, 90);
        assert_eq!((class.name(), class.latency_ns(), class.bandwidth_mib_s()), ("tape", 7_000, 90));
        assert_eq!(format!("{class:?}"), "tape (7000 ns, 90 MiB/s)");
    }
}
