//! Timing: thread CPU time, codecs in turn within each round, medians over the rounds or the least of them.

use crate::peers::PageCodec;

/// Pages of one kind, one after the other, none same-filled.
pub struct Corpus {
    /// The kind's name.
    pub name: String,
    /// The pages.
    pub bytes: Vec<u8>,
    /// How many same-filled pages were taken out.
    pub same_filled: usize,
}

/// What one codec did with one corpus.
#[derive(Clone, Default)]
pub struct Figures {
    /// Seconds of CPU time for all pages.
    pub encode: f64,
    /// Seconds of CPU time for all pages.
    pub decode: f64,
    /// Bytes of all objects; a page that did not shrink counts whole.
    pub bytes: usize,
    /// Pages that did not shrink.
    pub raw: usize,
}

/// Which of the times of all rounds is the figure.
#[derive(Clone, Copy)]
pub enum Take {
    /// The middle one.
    Median,
    /// The least, which survives a machine that others use: what they take from a cache only ever adds.
    Least,
}

/// Runs `rounds` rounds of every codec over a corpus, after one that checks every page.
pub fn run(
    corpus: &Corpus,
    codecs: &mut [Box<dyn PageCodec>],
    rounds: usize,
    take: Take,
    page: usize,
) -> Vec<Figures> {
    let mut out = vec![0u8; 2 * page + 1024];
    let mut back = vec![0u8; page];
    let mut times = vec![(vec![], vec![]); codecs.len()];
    let mut figures = vec![Figures::default(); codecs.len()];
    let mut arenas = vec![];
    for (codec, figures) in codecs.iter_mut().zip(&mut figures) {
        let (mut arena, mut ends) = (vec![], vec![]);
        for source in corpus.bytes.chunks_exact(page) {
            match codec.encode(source, &mut out) {
                Some((len, tag)) => {
                    arena.extend(&out[..len]);
                    codec.decode(tag, &out[..len], &mut back);
                    assert!(back == source, "{} changed a page of {}", codec.name(), corpus.name);
                    ends.push((arena.len(), tag));
                }
                None => {
                    arena.extend(source);
                    figures.raw += 1;
                    ends.push((arena.len(), 0));
                }
            }
        }
        figures.bytes = arena.len();
        arenas.push((arena, ends));
    }
    for _ in 0..rounds {
        for ((codec, times), (arena, ends)) in codecs.iter_mut().zip(&mut times).zip(&arenas) {
            let start = thread_seconds();
            for source in corpus.bytes.chunks_exact(page) {
                std::hint::black_box(codec.encode(source, &mut out));
            }
            let middle = thread_seconds();
            let mut from = 0;
            for &(end, tag) in ends {
                if end - from == page {
                    back.copy_from_slice(&arena[from..end]);
                } else {
                    codec.decode(tag, &arena[from..end], &mut back);
                }
                std::hint::black_box(&mut back);
                from = end;
            }
            let stop = thread_seconds();
            times.0.push(middle - start);
            times.1.push(stop - middle);
        }
    }
    for (figures, (mut encode, mut decode)) in figures.iter_mut().zip(times) {
        figures.encode = take.of(&mut encode);
        figures.decode = take.of(&mut decode);
    }
    figures
}

impl Take {
    fn of(self, values: &mut [f64]) -> f64 {
        values.sort_by(f64::total_cmp);
        let at = match self {
            Self::Median => values.len() / 2,
            Self::Least => 0,
        };
        values.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// CPU time of this thread, in seconds.
pub fn thread_seconds() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
