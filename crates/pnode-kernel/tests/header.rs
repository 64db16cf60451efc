//! `include/pnode.h` against the Rust half: every function, and every number that crosses the interface.

use std::collections::BTreeMap;

use pnode_core::Features;

const HEADER: &str = include_str!("../include/pnode.h");
const EXPORTS: &str = include_str!("../src/c_interface/export.rs");

/// The names that follow `before` and end at `after`.
fn names(text: &str, before: &str, after: char) -> Vec<String> {
    let mut names: Vec<_> = text
        .match_indices(before)
        .filter_map(|(at, _)| text[at + before.len()..].split_once(after))
        .map(|(name, _)| format!("pnode_{name}"))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    names.sort();
    names
}

/// The parameters of a declaration: how many, not counting `void`.
fn arity(text: &str, name: &str, opening: &str) -> usize {
    let at = text.find(&format!("{opening}{name}(")).unwrap_or_else(|| panic!("{name} is not declared"));
    let (parameters, _) = text[at..].split_once('(').unwrap().1.split_once(')').unwrap();
    parameters.split(',').filter(|parameter| !parameter.trim().is_empty()).count()
}

#[test]
fn every_function_is_declared_and_defined() {
    let defined = names(EXPORTS, "fn pnode_", '(');
    let mut declared = names(HEADER, "\nint pnode_", '(');
    declared.extend(names(HEADER, "\nvoid pnode_", '('));
    declared.extend(names(HEADER, "\nvoid *pnode_", '('));
    declared.sort();
    assert_eq!(defined, declared);
    for name in &defined {
        let opening =
            ["int ", "void ", "void *"].into_iter().find(|o| HEADER.contains(&format!("\n{o}{name}(")));
        assert_eq!(arity(HEADER, name, opening.unwrap()), arity(EXPORTS, name, "fn "), "{name}");
    }
}

#[test]
fn the_doors_have_the_bits_of_the_header() {
    let header: BTreeMap<_, u16> = HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define PNODE_")?.split_once("(1u << "))
        .map(|(name, bit)| (name.trim(), 1 << bit.split(')').next().unwrap().parse::<u32>().unwrap()))
        .collect();
    let rust: BTreeMap<_, _> = Features::DOORS.iter().map(|(door, name)| (*name, door.bits())).collect();
    assert_eq!(header, rust);
}
