//! Throws bytes at every decoder that a stranger reaches: none panics, none allocates much more than it was
//! given, and what is accepted means the same when it is encoded and read again.
//!
//! Inputs are valid ones, changed: bits, numbers, lengths, parts cut out, doubled, or taken from another.
//! There is no coverage to go by; what a target says became of an input stands in for it, and inputs with new
//! words are changed further. What lies in `tests/corpus/<target>/` is tried first.
//!
//! | variable | |
//! |---|---|
//! | `ATLAS_FUZZ_INPUTS` | inputs for each target; 2000 |
//! | `ATLAS_FUZZ_SECONDS` | seconds for each target instead |
//! | `ATLAS_FUZZ_SEED` | where to begin; 1 |
//! | `ATLAS_FUZZ_TARGET` | only this one |
//! | `ATLAS_FUZZ_KEEP` | inputs with new words are added to the corpus |

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atlas_smr_replica::sim::SimRng;
use atlas_smr_replica::sim::fuzz::{TARGETS, Target};

/// Counts what each thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has nothing to count any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is passed on unchanged to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes as isize - layout.size() as isize);
        // SAFETY: passed on.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Inputs are no longer.
const INPUT_BYTES_MAX: usize = 16 << 10;
/// After so many inputs a target begins anew.
const LIFE: u64 = 400;
/// So many inputs are kept to be changed further.
const POOL_MAX: usize = 400;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target.name)
}

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(corpus(target)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| std::fs::read(path).expect("the corpus can be read");
    paths.iter().map(read).collect()
}

/// A name for an input: of its contents.
fn name_of(input: &[u8]) -> String {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Numbers at which something may go wrong.
fn odd_number(rng: &mut SimRng, input: &[u8]) -> u64 {
    let length = input.len() as u64;
    let near = [
        0,
        1,
        length,
        length / 2,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0xffff,
        u64::from(u32::MAX),
        1 << 31,
        u64::MAX,
        1 << 63,
    ];
    let number = rng.pick(&near);
    match rng.below(3) {
        0 => number.wrapping_sub(rng.below(9)),
        1 => number.wrapping_add(rng.below(9)),
        _ => number,
    }
}

/// One change to an input; `other` is another input.
fn change(rng: &mut SimRng, input: &mut Vec<u8>, other: &[u8]) {
    if input.is_empty() {
        input.push(rng.below(256) as u8);
        return;
    }
    let at = rng.below(input.len() as u64) as usize;
    let long = rng.below((input.len() - at) as u64).min(1 << rng.below(12)) as usize + 1;
    match rng.below(9) {
        0 => input[at] ^= 1 << rng.below(8),
        1 => input[at] = rng.below(256) as u8,
        2 | 3 => {
            let bytes = odd_number(rng, input).to_le_bytes();
            let width = rng.pick(&[1, 2, 4, 8]).min(input.len() - at);
            input[at..at + width].copy_from_slice(&bytes[..width]);
        }
        4 => drop(input.drain(at..at + long)),
        5 => {
            let copy = input[at..at + long].to_vec();
            let to = rng.below(input.len() as u64 + 1) as usize;
            input.splice(to..to, copy);
        }
        6 => {
            let bytes: Vec<u8> = (0..rng.below(16)).map(|_| rng.below(256) as u8).collect();
            input.splice(at..at, bytes);
        }
        7 => input.truncate(at),
        _ => {
            let from = rng.below(other.len() as u64 + 1) as usize;
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

/// One input, and the most memory that it took.
fn attempt(run: &mut dyn FnMut(&[u8]) -> String, input: &[u8]) -> Result<(String, usize), String> {
    let before = HELD.with(Cell::get);
    MOST.with(|most| most.set(before));
    let word = catch_unwind(AssertUnwindSafe(|| run(input)));
    let most = MOST.with(Cell::get) - before;
    match word {
        Ok(word) => Ok((word, most.max(0) as usize)),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(words.unwrap_or_else(|| "a panic without words".to_owned()))
        }
    }
}

/// Takes one input in; what became of it, in a word.
type Runner = Box<dyn FnMut(&[u8]) -> String>;

struct Campaign<'a> {
    target: &'a Target,
    run: Runner,
    pool: Vec<Vec<u8>>,
    words: BTreeSet<String>,
    keeps: bool,
    /// The most memory beyond what is allowed for each byte.
    most: usize,
}

impl Campaign<'_> {
    /// Tries an input; whether it had new words.
    fn try_one(&mut self, input: &[u8]) -> bool {
        let (per_byte, beside) = self.target.memory;
        let name = self.target.name;
        let failed = match attempt(&mut self.run, input) {
            Ok((_, most)) if most > per_byte * input.len() + beside => {
                format!("{most} bytes are allocated for {} bytes", input.len())
            }
            Ok((word, most)) => {
                self.most = self.most.max(most.saturating_sub(per_byte * input.len()));
                return self.words.insert(word);
            }
            Err(panic) => panic,
        };
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{}", name_of(input)));
        std::fs::write(&path, input).expect("a failing input can be written");
        panic!(
            "{name}: {failed}; the input is {}, keep it in {}",
            path.display(),
            corpus(self.target).display()
        );
    }

    fn keep(&mut self, input: Vec<u8>) {
        if self.keeps && input.len() <= 2048 {
            let directory = corpus(self.target);
            let made = std::fs::create_dir_all(&directory);
            made.and_then(|()| std::fs::write(directory.join(name_of(&input)), &input))
                .expect("the corpus can be written");
        }
        if self.pool.len() < POOL_MAX {
            self.pool.push(input);
        }
    }
}

fn fuzz(target: &Target, seed: u64) {
    let mut campaign = Campaign {
        target,
        run: (target.start)(),
        pool: Vec::new(),
        words: BTreeSet::new(),
        keeps: false,
        most: 0,
    };
    let valid = (target.valid)();
    assert!(!valid.is_empty(), "{}: there are no valid inputs", target.name);
    for input in kept(target).into_iter().chain(valid) {
        campaign.try_one(&input);
        campaign.pool.push(input);
    }
    campaign.keeps = std::env::var("ATLAS_FUZZ_KEEP").is_ok();
    let seconds = number("ATLAS_FUZZ_SECONDS").map(Duration::from_secs);
    let inputs = number("ATLAS_FUZZ_INPUTS").unwrap_or(2000);
    let (begin, mut tried) = (Instant::now(), 0);
    let mut rng = SimRng::new(seed);
    while seconds.map_or(tried < inputs, |seconds| begin.elapsed() < seconds) {
        tried += 1;
        if tried % LIFE == 0 {
            campaign.run = (target.start)();
        }
        let pick = |rng: &mut SimRng, pool: &[Vec<u8>]| pool[rng.below(pool.len() as u64) as usize].clone();
        let (mut input, other) = (pick(&mut rng, &campaign.pool), pick(&mut rng, &campaign.pool));
        for _ in 0..1 + rng.below(4) {
            change(&mut rng, &mut input, &other);
        }
        if campaign.try_one(&input) {
            campaign.keep(input);
        }
    }
    println!(
        "{:<10} {tried:>8} inputs, {:>4} outcomes, {:>7} bytes allocated beside {} for each byte",
        target.name,
        campaign.words.len(),
        campaign.most,
        target.memory.0
    );
}

#[test]
fn no_decoder_panics_or_takes_more_memory_than_it_was_given_or_reads_what_it_did_not_write() {
    let seed = number("ATLAS_FUZZ_SEED").unwrap_or(1);
    let only = std::env::var("ATLAS_FUZZ_TARGET").ok();
    println!("ATLAS_FUZZ_SEED={seed}");
    let is_chosen = |target: &&Target| only.as_deref().is_none_or(|only| only == target.name);
    let chosen: Vec<&Target> = TARGETS.iter().filter(is_chosen).collect();
    assert!(!chosen.is_empty(), "there is no such target");
    // A panic is a finding that is told of with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let results: Vec<Option<String>> = chosen
        .iter()
        .map(|target| {
            let failed = catch_unwind(|| fuzz(target, seed)).err()?;
            let words = failed.downcast_ref::<String>().cloned();
            Some(words.unwrap_or_else(|| format!("{}: a panic without words", target.name)))
        })
        .collect();
    let _ = std::panic::take_hook();
    let failed: Vec<String> = results.into_iter().flatten().collect();
    assert!(failed.is_empty(), "ATLAS_FUZZ_SEED={seed}\n{}", failed.join("\n"));
}
