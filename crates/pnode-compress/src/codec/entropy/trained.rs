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

/// The codes of literals. Lengths as hexadecimal digits, a row of 64 symbols.
pub(super) const LITERALS: [&[u8; 256]; 8] = [
    b"456777777778877799a999a99999999868899999989999795455555555999899\
      9999999a99aaaaaa9999a99aaaaa9aa8a887778887888887787778888789aaa9\
      9aaaa9aa9aaaaaa9aaaaaaaaaa9aa9aa99aa9aaaaaaaaa9aaaaaaaaa9aaaaaaa\
      9aa99aaaaaaaa9a9aaaaa9a9aa99aaaaa9aaaa9a999a9aaaaaaaaa9aaaaaaa99",
    b"36789999788999997888899988999a9a59999999899999997788888877999997\
      7999999979999999899999998999999886777677667777776776677777799999\
      89aa9aaa89a99aaa89a99aa989a99aaa89999a9a89a99aa989999aaa8999aa9a\
      89a99a9989a9aaa98899999989999999669999998999899889aaaa7889a9a9a9",
    b"288889898999999959998999899aaaa94aaaaaaa99aaaaaa6666666666a99999\
      799999998999aaaa8a9aaaaa9aaa9aa98aa9989a98aaaaa8798989aa99a9aaaa\
      899998998888888878888888888888888aaa9aaa9aaaaa9a8aaaaaaa9aaaaa8a\
      6a69aaaa9aaaaaaa7a8a8aa99aaaaaaa8aaaaaaa9aaa9aaa8aaaaa9a9aaaaaaa",
    b"4777777879999999699999997999999969898989798899996999999979999999\
      5999999979999999699999997999999969978989799999996999999979999996\
      6999999979999999699999997999999969998999799999996999999979999999\
      6999998979999989699999997999999957888889799999996999997779999997",
    b"4678788879998995789a89aa8aaa9aa87aaa59aa88a99a9a87aa99aa87a999aa\
      7698679946aa68aa8aa888999aa999999aa99a7a9aaa9a989a9977999aa98999\
      89a676a995a596aa8aaa9aaa9aaaaaaaaaaaaaaa9aaaaaaa9aaaaa99999a9a99\
      77888887889aa99a8989a9999999aa9889999999679898988999998888888875",
    b"577888878878888799aa89a999a99988789aaaaa8999aa9a5555555555aa989a\
      58778aa8999889aaa8999999999988989998858887999997788889aa9889aaa9\
      98888788899aaaa899aa9aaa989a999a89a8999a99999a899999999988999999\
      89888998999a89a9aaaaaa989aaaa9aa989aaa9a99a89aaa9aaaa89a9a9aaa99",
    b"8aaaaaaaa96aaaaaaaaaaaaaaaaaaaaa4a99aa9a777a78778889999a9a88999a\
      a787868897a978778a77789a99aaaaa6a575546765a856556a5556878699a9aa\
      aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
      aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"3567777776777777878888888888888888888889878889898889889988998988\
      8889999987899999889989998899999988998899879999998899999988998997\
      8899999987999999889999998899999988999999879999998899999988999999\
      8899999987999999889999998899999988989999879999998899998998999995",
];

/// The codes of descriptions: of no code, of the lengths 1 to 10, and of eight symbols without a code.
pub(super) const DESCRIPTIONS: [&[u8; 12]; 4] =
    [b"166665433664", b"366655443226", b"266654433256", b"356665432246"];

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::{DESCRIPTIONS, LITERALS, TOKENS};

    /// Who writes another decoder reads the lengths there.
    #[test]
    fn the_format_names_these_lengths() {
        let formats = include_str!("../../../FORMATS.md");
        for set in TOKENS {
            let rows: Vec<&str> =
                set.chunks(42).map(|row| core::str::from_utf8(row).expect("digits")).collect();
            assert!(formats.contains(&rows.join("\n")), "{rows:?}");
        }
        for set in LITERALS {
            let rows: Vec<&str> =
                set.chunks(64).map(|row| core::str::from_utf8(row).expect("digits")).collect();
            assert!(formats.contains(&rows.join("\n")), "{rows:?}");
        }
        for set in DESCRIPTIONS {
            let row: Vec<String> = set.iter().map(|&digit| char::from(digit).to_string()).collect();
            assert!(formats.contains(&row.join(" ")), "{row:?}");
        }
    }
}
