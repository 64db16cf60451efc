//! The self-test that the module runs in the kernel, run on a fake one.

mod fake;

use fake::{Device, Fake};
use pnode_kernel::{Errno, Level, selftest};

/// The KTAP lines of a run.
fn report() -> Vec<String> {
    Fake::take_log().into_iter().filter(|(level, _)| *level == Level::Report).map(|(_, line)| line).collect()
}

fn failed(report: &[String]) -> Vec<&String> {
    report.iter().filter(|line| line.starts_with("not ok")).collect()
}

#[test]
fn passes_on_ranges_of_any_start_and_length() {
    for (first, frames) in [(0, 64), (0x10_0000, 4096), (0x12_3457, 1777), (1, 600), (512, 1024), (40, 24)] {
        let device = Device::new(first, frames);
        let passed = selftest::run(Fake, device.mapping());
        let report = report();
        assert_eq!(passed, Ok(true), "{frames} frames from {first:#x}: {report:#?}");
        let results = report.iter().filter(|line| line.starts_with("ok ")).count();
        assert_eq!(report[..2], ["KTAP version 1".to_string(), format!("1..{results}")]);
        assert_eq!(Fake::live(), 0, "metadata was left");
    }
}

/// The test can fail: a bit that flips while others run is found by the case that writes patterns.
#[test]
fn finds_a_bit_that_flips() {
    let device = Device::new(0x4_0000, 256);
    let base = device.base();
    Fake::on_relax(move || {
        // SAFETY: the device lives until the end of the test, and nobody has a reference to its pages.
        let byte = unsafe { base.add(77 * 4096 + 5) };
        // SAFETY: as above.
        let value = unsafe { byte.read() };
        // SAFETY: as above.
        unsafe { byte.write(value ^ 0x10) };
    });
    assert_eq!(selftest::run(Fake, device.mapping()), Ok(false));
    let report = report();
    assert_eq!(failed(&report), [&"not ok 6 frames keep what is written to them".to_string()], "{report:#?}");
    assert!(
        report.iter().any(|line| line.contains("expected what was written, found 0x4004d")),
        "{report:#?}"
    );
}

/// Each allocation fails once: the run says so, and gives everything back.
#[test]
fn says_so_when_metadata_cannot_be_had() {
    let device = Device::new(0x8_0000, 64);
    let mut refused = 0;
    for nth in 0.. {
        Fake::fail_at(Some(nth));
        let passed = selftest::run(Fake, device.mapping());
        assert_eq!(Fake::live(), 0, "metadata was left when allocation {nth} failed");
        let report = report();
        if !Fake::has_failed() {
            assert_eq!(passed, Ok(true));
            break;
        }
        match passed {
            Err(errno) => assert_eq!(errno, Errno::ENOMEM),
            Ok(passed) => assert!(!passed && failed(&report).len() == 1, "allocation {nth}: {report:#?}"),
        }
        refused += 1;
    }
    assert!(refused > 20, "only {refused} allocations");
}
