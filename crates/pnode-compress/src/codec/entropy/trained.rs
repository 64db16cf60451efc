//! Code lengths that come with the format: no object describes them, and their tables cost nothing to build.
//!
//! Each set was made from the pages of nine programs (interpreters, compilers, databases, executables and sources) by
//! putting each page to the code that suits it best and each code to the pages it got, over and over (Lloyd, 1982).
//! They are part of the format: another length needs another version of it.

/// The codes of tokens. Lengths as hexadecimal digits, a row of 42 for each kind of distance.
pub(super) const TOKENS: [&[u8; 252]; 4] = [
    b"aaaaaaa6995668a9756689699779999876aaaaaa9a\
      a9a85799aa579aaa7678a99a889a9a9899aaaaaaaa\
      97984589aa5779aa76679a9a988a9a9888aaaa9a9a\
      a899568aaa788aaa87789aaa999aaa9998aaaaaaaa\
      98985688a989aa9a9899a9a9999a898889aaaaaaaa\
      a9999aaaaa99aaaa9999aaa9999aaa99aaaaaaaaaa",
    b"aaaaaaa59834499a74659887588a8a9799aaaaaaaa\
      aaa767aaaa569a8aa779aaaa8aaaaaa7aaaaaaaaaa\
      a9a967a9aa776a9a9787a999789aaaa999aaaaaaaa\
      969a76a9aa997a9a9888aa9a799aaaaaaaaaaaaaaa\
      79a99998aa9aaa9aaa8aa8aa9aaa9aaaaaaaaaaaaa\
      a9aa99aa9a99aaaaa8aaaaaa89aaaaaaaaaaaaaaaa",
    b"aaaaaaa56766797877789889999a9aaaa9aaaaaaaa\
      889979a89a888a899879a89999aa89aa9aaaaaaaaa\
      889888a899889a899878a899989a899999aaaaaaaa\
      889889a89a99aa899989a89a99aa99a999aaaaaaaa\
      5676569678778a577778a578778a578888a899aa99\
      967767998888999788789978879998888999999999",
    b"aaaaaaa77775589888579987748a89996aaaaaaaaa\
      aa9989aaaa898aaa988aaaaa989aaa989aaaaaaaaa\
      a898789aa9999aaa9989aaa9879aaa9889aaa999aa\
      aa8888aaa9999aaa9999aaa988aaaa998aaaa999aa\
      89665689a8888a9a8778a9a7758aaa7768aaa8889a\
      a966568aa8887aaa7778aaa6668aaa7778aaa888aa",
];

/// The codes of descriptions: of no code, of the lengths 1 to 10, and of eight symbols without a code.
pub(super) const DESCRIPTIONS: [&[u8; 12]; 4] =
    [b"166665433664", b"366655443226", b"266654433256", b"356665432246"];

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::{DESCRIPTIONS, TOKENS};

    /// Who writes another decoder reads the lengths there.
    #[test]
    fn the_format_names_these_lengths() {
        let formats = include_str!("../../../FORMATS.md");
        for set in TOKENS {
            let rows: Vec<&str> =
                set.chunks(42).map(|row| core::str::from_utf8(row).expect("digits")).collect();
            assert!(formats.contains(&rows.join("\n")), "{rows:?}");
        }
        for set in DESCRIPTIONS {
            let row: Vec<String> = set.iter().map(|&digit| char::from(digit).to_string()).collect();
            assert!(formats.contains(&row.join(" ")), "{row:?}");
        }
    }
}
