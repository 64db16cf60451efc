//! What the tests of a machine share.

use pnode_core::NodeId;
use pnode_user::Machine;
use pnode_user::fault::Choice;
use pnode_user::machine::{BuildError, Builder};

/// Runs `test` on a machine of each fault backend, and audits it afterwards.
pub(crate) fn on_all(builder: impl Fn() -> Builder, test: impl Fn(&Machine)) {
    for choice in [Choice::Signal, Choice::Userfaultfd, Choice::UserfaultfdEvents] {
        match builder().faults(choice).build() {
            Ok(machine) => {
                test(&machine);
                machine.audit().unwrap();
            }
            Err(BuildError::Faults(error)) if choice != Choice::Signal => println!("SKIPPED: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The first nodes of a machine.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) fn ids<const N: usize>(machine: &Machine) -> [NodeId; N] {
    std::array::from_fn(|number| machine.node(number as u16).unwrap())
}
