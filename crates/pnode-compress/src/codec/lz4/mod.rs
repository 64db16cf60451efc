//! The LZ4 block format (Yann Collet, `lz4_Block_format.md`), specialised to pages.
//!
//! Any LZ4 decoder reads what these encoders write, and [`decode`] reads what any LZ4 encoder writes for a page. It
//! also holds blocks to the format's rules for their end (the last 5 bytes are literals, the last match starts 12 bytes
//! before the end or earlier), as the reference decoder does.
//!
//! A page is short: positions fit 16 bits and every distance the format can name lies in the window, so the search
//! needs no window checks, and a table of 8 KiB stays in the first-level cache.

mod decode;
mod dense;
mod fast;
mod sink;

pub use decode::decode;
pub use dense::encode_dense;
pub use fast::encode_fast;

/// The last bytes of a block are literals: at least this many.
const LAST_LITERALS: usize = 5;
/// No match starts closer than this to the end of the page.
const MATCH_LIMIT: usize = 12;
/// The shortest match that the format can express.
const MIN_MATCH: usize = 4;
