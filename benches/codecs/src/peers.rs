//! The codecs that are measured, behind one trait: ours and the C libraries.

use core::ffi::{c_char, c_int, c_void};

use pnode_compress::codec::{Codec, Scratch, Tag, decode, encode_as};

/// A codec of whole pages.
pub trait PageCodec {
    /// The name in tables and JSON.
    fn name(&self) -> String;

    /// Writes an object shorter than the page to the start of `out` and returns its length and what a tag says beside
    /// it, or `None`.
    fn encode(&mut self, page: &[u8], out: &mut [u8]) -> Option<(usize, u8)>;

    /// Fills `page` from an object.
    fn decode(&mut self, tag: u8, object: &[u8], page: &mut [u8]);
}

/// Every codec; the first one is the yardstick.
pub fn all() -> Vec<Box<dyn PageCodec>> {
    let mut list: Vec<Box<dyn PageCodec>> = vec![Box::new(CLz4)];
    list.extend(
        [Codec::Fast, Codec::Dense, Codec::Entropy, Codec::Deep]
            .map(|codec| Box::new(Ours { codec, scratch: Scratch::new() }) as Box<dyn PageCodec>),
    );
    list.extend([3, 9].map(|level| Box::new(CLz4Hc { level }) as Box<dyn PageCodec>));
    list.extend([-1, 1].map(|level| Box::new(CZstd::new(level)) as Box<dyn PageCodec>));
    list
}

/// The version of the C libraries.
pub fn versions() -> (String, String) {
    // SAFETY: these calls read constants.
    let (lz4, zstd) = unsafe { (lz4_sys::LZ4_versionNumber(), zstd_sys::ZSTD_versionNumber()) };
    let dotted = |v: u32| format!("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
    (dotted(lz4 as u32), dotted(zstd))
}

struct Ours {
    codec: Codec,
    scratch: Scratch,
}

impl PageCodec for Ours {
    fn name(&self) -> String {
        format!("pnode {:?}", self.codec).to_lowercase()
    }

    fn encode(&mut self, page: &[u8], out: &mut [u8]) -> Option<(usize, u8)> {
        encode_as(self.codec, page, &mut out[..page.len() - 1], &mut self.scratch)
            .ok()
            .map(|object| (object.len(), object.tag().to_byte()))
    }

    fn decode(&mut self, tag: u8, object: &[u8], page: &mut [u8]) {
        let tag = Tag::from_byte(tag).expect("a tag of ours");
        decode(tag, object, page, &mut self.scratch).expect("an object of ours");
    }
}

unsafe extern "C" {
    fn LZ4_compress_HC(src: *const c_char, dst: *mut c_char, size: c_int, room: c_int, level: c_int)
    -> c_int;
}

/// C lz4's default compressor, with the full bound as room so that it runs its quickest loop.
struct CLz4;

impl PageCodec for CLz4 {
    fn name(&self) -> String {
        "c lz4".into()
    }

    fn encode(&mut self, page: &[u8], out: &mut [u8]) -> Option<(usize, u8)> {
        // SAFETY: both ranges are those of live slices.
        let n = unsafe {
            lz4_sys::LZ4_compress_default(
                page.as_ptr().cast(),
                out.as_mut_ptr().cast(),
                page.len() as c_int,
                out.len() as c_int,
            )
        };
        (n > 0 && (n as usize) < page.len()).then_some((n as usize, 0))
    }

    fn decode(&mut self, _: u8, object: &[u8], page: &mut [u8]) {
        // SAFETY: both ranges are those of live slices.
        let n = unsafe {
            lz4_sys::LZ4_decompress_safe(
                object.as_ptr().cast(),
                page.as_mut_ptr().cast(),
                object.len() as c_int,
                page.len() as c_int,
            )
        };
        assert_eq!(n as usize, page.len());
    }
}

struct CLz4Hc {
    level: c_int,
}

impl PageCodec for CLz4Hc {
    fn name(&self) -> String {
        format!("c lz4hc {}", self.level)
    }

    fn encode(&mut self, page: &[u8], out: &mut [u8]) -> Option<(usize, u8)> {
        // SAFETY: both ranges are those of live slices.
        let n = unsafe {
            LZ4_compress_HC(
                page.as_ptr().cast(),
                out.as_mut_ptr().cast(),
                page.len() as c_int,
                out.len() as c_int,
                self.level,
            )
        };
        (n > 0 && (n as usize) < page.len()).then_some((n as usize, 0))
    }

    fn decode(&mut self, _: u8, object: &[u8], page: &mut [u8]) {
        CLz4.decode(0, object, page);
    }
}

/// C zstd with contexts kept between calls and frames without checksums.
struct CZstd {
    level: c_int,
    encoder: *mut zstd_sys::ZSTD_CCtx,
    decoder: *mut zstd_sys::ZSTD_DCtx,
}

impl CZstd {
    fn new(level: c_int) -> Self {
        // SAFETY: plain allocations, owned by this value.
        let (encoder, decoder) = unsafe { (zstd_sys::ZSTD_createCCtx(), zstd_sys::ZSTD_createDCtx()) };
        Self { level, encoder, decoder }
    }
}

impl Drop for CZstd {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe {
            zstd_sys::ZSTD_freeCCtx(self.encoder);
            zstd_sys::ZSTD_freeDCtx(self.decoder);
        }
    }
}

impl PageCodec for CZstd {
    fn name(&self) -> String {
        format!("c zstd {}", self.level)
    }

    fn encode(&mut self, page: &[u8], out: &mut [u8]) -> Option<(usize, u8)> {
        // SAFETY: both ranges are those of live slices, the context is ours.
        let n = unsafe {
            zstd_sys::ZSTD_compressCCtx(
                self.encoder,
                out.as_mut_ptr().cast::<c_void>(),
                out.len(),
                page.as_ptr().cast::<c_void>(),
                page.len(),
                self.level,
            )
        };
        (n < page.len()).then_some((n, 0))
    }

    fn decode(&mut self, _: u8, object: &[u8], page: &mut [u8]) {
        // SAFETY: both ranges are those of live slices, the context is ours.
        let n = unsafe {
            zstd_sys::ZSTD_decompressDCtx(
                self.decoder,
                page.as_mut_ptr().cast::<c_void>(),
                page.len(),
                object.as_ptr().cast::<c_void>(),
                object.len(),
            )
        };
        assert_eq!(n, page.len());
    }
}
