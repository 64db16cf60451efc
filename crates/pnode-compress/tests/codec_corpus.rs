//! The synthetic corpora are the published ones.

#[path = "support/sha256.rs"]
mod sha256;
#[path = "support/synth.rs"]
mod synth;

#[test]
fn the_digest_is_sha256() {
    assert_eq!(sha256::hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn corpora_are_the_published_bytes() {
    let published = [
        ("bf16", "7cd413f4120e3de4"),
        ("f64", "f8577b2c46e1da4c"),
        ("ints", "5b867d2d63b14ed6"),
        ("json", "405d53ec1aa26082"),
        ("ptrs", "54b13a0653b2b5d2"),
        ("random", "115d13dc6a5e66a8"),
        ("same", "4c60797422acc5fb"),
        ("slab", "4dbfc4b10a4f549b"),
        ("sparse", "9fd5b19362a1513f"),
        ("zero", "5647f05ec1895894"),
    ];
    for (kind, digest) in published {
        assert!(sha256::hex(&synth::corpus(kind, 512)).starts_with(digest), "{kind}");
    }
}
