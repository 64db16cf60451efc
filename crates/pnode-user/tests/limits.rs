//! Under tight limits a machine works or is refused with a sentence; it neither hangs nor leaves threads behind.

use std::process::Command;

use pnode_user::fault::Choice;
use pnode_user::{Machine, NodeSpec};

/// Builds a machine, uses it, and says how that went.
fn use_a_machine(choice: Choice) -> Result<(), String> {
    let say = |error: &dyn core::fmt::Display| error.to_string();
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(2048))
        .node(NodeSpec::compressed(512, 1536))
        .faults(choice)
        .build()
        .map_err(|error| say(&error))?;
    let [dram, compressed] = [0, 1].map(|number| machine.node(number).unwrap());
    let memory = machine.map(1024, dram).map_err(|error| say(&error))?;
    for page in 0..1024 {
        memory.write(page * machine.page().bytes(), &[page as u8; 64]).map_err(|error| say(&error))?;
    }
    memory.demote(0..512, compressed).map_err(|error| say(&error))?;
    for page in 0..1024 {
        let mut bytes = [0; 64];
        memory.read(page * machine.page().bytes(), &mut bytes).map_err(|error| say(&error))?;
        assert_eq!(bytes, [page as u8; 64]);
    }
    machine.unplug(compressed).map_err(|error| say(&error))?;
    machine.audit().map_err(|error| say(&error))
}

#[test]
#[ignore = "the test below runs it in a process of its own, under limits"]
fn under_limits() {
    for choice in [Choice::Best, Choice::Signal] {
        match use_a_machine(choice) {
            Ok(()) => println!("worked"),
            Err(sentence) => println!("refused: {sentence}"),
        }
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count());
    // The test harness has two: its own, and the one that runs this.
    println!("threads: {threads}");
}

/// What the test above prints under `limit`, a setting of the shell's `ulimit`.
fn limited(limit: &str) -> Option<String> {
    let myself = std::env::current_exe().unwrap();
    let script =
        format!("ulimit {limit} && exec \"$0\" --exact under_limits --ignored --nocapture --test-threads=1");
    let output = Command::new("sh").arg("-c").arg(script).arg(myself).output().ok()?;
    // A process that has too little to even start the test says nothing that we would judge.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !text.contains("running 1 test") {
        return None;
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    // Nor does one that has so little that the allocator of the language gives up on something small: how little that is
    // depends on the size of this very program.
    let given_up = errors.split("memory allocation of ").nth(1).and_then(|rest| rest.split(' ').next());
    if given_up.and_then(|bytes| bytes.parse().ok()).is_some_and(|bytes: usize| bytes < 64 << 10) {
        return None;
    }
    assert!(output.status.success(), "{limit}: {text}{errors}");
    Some(text)
}

#[test]
fn few_descriptors_little_address_space_or_small_files_are_clear_errors() {
    let roomy = limited("-n 64").unwrap();
    assert_eq!(roomy.matches("worked").count(), 2, "{roomy}");
    let mut refused = 0;
    for limit in ["-f 64", "-n 5", "-n 6", "-n 7", "-n 8", "-v 12000", "-v 18000", "-v 24000", "-v 30000"] {
        let Some(text) = limited(limit) else { continue };
        let (worked, sentences) = (text.matches("worked").count(), text.matches("refused: ").count());
        assert_eq!(worked + sentences, 2, "{limit}: {text}");
        assert!(text.contains("threads: 1") || text.contains("threads: 2"), "{limit}: {text}");
        refused += sentences;
    }
    assert!(refused > 0, "no limit was tight enough to be seen");
}
