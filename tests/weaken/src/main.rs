//! Takes every memory order of the workspace away in turn, and asks the loom models which of them notices.
//!
//!     cargo run --release --manifest-path tests/weaken/Cargo.toml -- [--crate NAME] [--only TEXT] [--markdown FILE]
//!
//! The models are built once; the shim in `pnode_core::sync` weakens an order by its place while they run. Per order, the
//! models that use it run one after the other, quickest first, until one fails. An order that none misses is a survivor:
//! it must be listed, with its reason, in `tests/weaken/survivors.txt`. Exit 1 if one is not, or if one that is listed is
//! missed after all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

const CRATES: [&str; 3] = ["pnode-core", "pnode-buddy", "pnode-compress"];

/// A model that takes so many times longer than without the change is given up, and has not noticed: fewer orders are more
/// interleavings.
const PATIENCE: u32 = 30;

struct Options {
    crates: Vec<String>,
    only: Option<String>,
    markdown: Option<PathBuf>,
}

/// How one run of one model ended.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Passed,
    Failed,
    GivenUp,
}

/// The models of one crate, the time each takes, and the orders that each uses.
struct Models {
    binary: PathBuf,
    times: BTreeMap<String, Duration>,
    executions: BTreeMap<String, u64>,
    users: BTreeMap<String, BTreeSet<String>>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return fail(&error),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("weaken: {error}");
    ExitCode::from(2)
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options { crates: Vec::new(), only: None, markdown: None };
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value; see --help"));
        match word.as_str() {
            "--crate" => options.crates.push(value()?),
            "--only" => options.only = Some(value()?),
            "--markdown" => options.markdown = Some(value()?.into()),
            "--help" => {
                println!(
                    "Takes every memory order away in turn; the loom models must notice.\n\n\
                     --crate NAME      only this crate (may be repeated); all of {CRATES:?} else\n\
                     --only TEXT       only orders whose FILE:LINE:COLUMN:ROLE contains this\n\
                     --markdown FILE   also write tables of models and orders there"
                );
                return Ok(None);
            }
            _ => return Err(format!("unknown option {word}; see --help")),
        }
    }
    if options.crates.is_empty() {
        options.crates = CRATES.map(String::from).to_vec();
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<bool, String> {
    // Cargo names source files from the root of the workspace.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no workspace above")?;
    env::set_current_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let reasons = survivors()?;
    let (mut table, mut orders) = (String::new(), String::new());
    let (mut noticed, mut explained, mut wrong) = (0, 0, Vec::new());
    let mut met = BTreeSet::new();
    for name in &options.crates {
        let models = Models::build(name)?;
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for (order, users) in &models.users {
            // Each order belongs to the crate whose source it stands in.
            if !order.starts_with(&format!("crates/{name}/src/"))
                || options.only.as_ref().is_some_and(|text| !order.contains(text.as_str()))
            {
                continue;
            }
            let by = models.first_to_notice(order, users);
            let listed = reasons.iter().find(|(listed, _)| stands_at(order, listed));
            met.extend(listed.map(|(listed, _)| listed.clone()));
            let verdict = match (&by, listed) {
                (Some(model), None) => {
                    noticed += 1;
                    *first.entry(model.clone()).or_default() += 1;
                    format!("`{model}`")
                }
                (None, Some((_, reason))) => {
                    explained += 1;
                    format!("none: {reason}")
                }
                (Some(model), Some(_)) => {
                    noticed += 1;
                    wrong.push(format!("{order} is listed as a survivor, but {model} notices"));
                    format!("`{model}`")
                }
                (None, None) => {
                    wrong.push(format!("{order} can be taken away, and no model notices"));
                    "**none**".into()
                }
            };
            println!("{order:60} {verdict}");
            orders += &format!("| {order} | {verdict} |\n");
        }
        table += &models.table(name, &first);
        for place in models.unused(name)? {
            if options.only.as_ref().is_none_or(|text| place.contains(text.as_str())) {
                println!("{place:60} **in no model**");
                orders += &format!("| {place} | **in no model** |\n");
                wrong.push(format!("{place}: no model uses this order"));
            }
        }
    }
    if options.only.is_none() && options.crates.len() == CRATES.len() {
        let unmet = reasons.iter().filter(|(listed, _)| !met.contains(listed));
        wrong.extend(
            unmet.map(|(listed, _)| format!("the listed survivor {listed:?} is no order that a model uses")),
        );
    }
    println!("\n{noticed} noticed, {explained} explained, {} wrong", wrong.len());
    wrong.iter().for_each(|line| println!("{line}"));
    if let Some(path) = &options.markdown {
        let text = format!("{table}\n| order | noticed by |\n| --- | --- |\n{orders}");
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(wrong.is_empty())
}

/// The listed survivors: the source line that an order stands on and its role, and why it is kept.
fn survivors() -> Result<Vec<(String, String)>, String> {
    let path = "tests/weaken/survivors.txt";
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let entries = text.lines().zip(1_usize..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    entries
        .map(|(line, number)| {
            let (order, reason) =
                line.split_once(" -- ").ok_or(format!("{path}:{number}: no ' -- ' before the reason"))?;
            Ok((order.into(), reason.into()))
        })
        .collect()
}

/// Whether `order`, FILE:LINE:COLUMN:ROLE, is the one listed as FILE ROLE TEXT: the text is part of its line, so that
/// the list outlives edits elsewhere in the file.
fn stands_at(order: &str, listed: &str) -> bool {
    let mut parts = order.split(':');
    let (Some(file), Some(line), Some(_), Some(role)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let mut words = listed.splitn(3, ' ');
    let (Some(in_file), Some(of_role), Some(text)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let number = line.parse::<usize>().unwrap_or(0);
    let source = fs::read_to_string(file).unwrap_or_default();
    in_file == file
        && of_role == role
        && source.lines().nth(number.wrapping_sub(1)).is_some_and(|line| line.contains(text))
}

/// Whether a line of code names an order that is more than relaxed; `bare` if the file imports the names themselves.
fn names_an_order(line: &str, bare: bool) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let orders = ["Acquire", "Release", "AcqRel", "SeqCst"];
    let mut words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let named = orders.iter().any(|order| code.contains(&format!("Ordering::{order}")));
    !code.trim_start().starts_with("use ") && (named || bare && words.any(|word| orders.contains(&word)))
}

impl Models {
    /// Builds the models of a crate, runs them once as they are, and notes who uses which order.
    fn build(name: &str) -> Result<Self, String> {
        eprintln!("{name}: building the models");
        let built = Command::new("cargo")
            .args(["test", "--release", "-p", name, "--features", "loom", "--test", "loom", "--no-run"])
            .args(["--target-dir", "target/loom"])
            .env("RUSTFLAGS", "--cfg loom")
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let said = String::from_utf8_lossy(&built.stderr);
        let binary = said.lines().find_map(|line| line.split_once("(target/loom/")?.1.strip_suffix(')'));
        let binary = Path::new("target/loom").join(binary.ok_or(format!("{name} does not build:\n{said}"))?);

        let listed = Command::new(&binary).arg("--list").output().map_err(|error| error.to_string())?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let orders = Path::new("target/loom").join(format!("{name}.orders"));
        let _ = fs::remove_file(&orders);
        let mut models =
            Self { binary, times: BTreeMap::new(), executions: BTreeMap::new(), users: BTreeMap::new() };
        for test in tests {
            let start = Instant::now();
            match models.ends(
                test,
                Duration::from_secs(600),
                &[("PNODE_ORDERS", &orders.to_string_lossy())],
            )? {
                End::Passed => models.times.insert(test.into(), start.elapsed()),
                _ => return Err(format!("{test} of {name} fails without any change")),
            };
        }
        let used = fs::read_to_string(&orders).map_err(|error| format!("{}: {error}", orders.display()))?;
        for (test, order) in used.lines().filter_map(|line| line.split_once('\t')) {
            match order.strip_prefix("executions:") {
                // A test may explore several models.
                Some(count) => {
                    *models.executions.entry(test.into()).or_default() +=
                        count.parse::<u64>().unwrap_or_default();
                }
                None => {
                    models.users.entry(order.into()).or_default().insert(test.into());
                }
            }
        }
        eprintln!("{name}: {} models use {} orders", models.times.len(), models.users.len());
        Ok(models)
    }

    /// The models of a crate: how many executions each explored, how many orders it uses, how many it noticed first.
    fn table(&self, name: &str, first: &BTreeMap<String, usize>) -> String {
        let mut table = format!(
            "\n| model of {name} | executions | orders used | noticed first |\n| --- | ---: | ---: | ---: |\n"
        );
        for test in self.times.keys() {
            let executions = self.executions.get(test).copied().unwrap_or_default();
            let used = self.users.values().filter(|users| users.contains(test)).count();
            let noticed = first.get(test).copied().unwrap_or_default();
            table += &format!("| `{test}` | {executions} | {used} | {noticed} |\n");
        }
        table
    }

    /// Where the sources of a crate name an order that no model ever uses, as FILE:LINE.
    fn unused(&self, name: &str) -> Result<Vec<String>, String> {
        let mut used: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for order in self.users.keys() {
            let mut parts = order.split(':');
            if let (Some(file), Some(line)) = (parts.next(), parts.next().and_then(|line| line.parse().ok()))
            {
                used.entry(file).or_default().insert(line);
            }
        }
        let (mut folders, mut unused) = (vec![PathBuf::from(format!("crates/{name}/src"))], Vec::new());
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let file = path.to_string_lossy().into_owned();
                // The shim hands orders on; they stand where it is called.
                if file.contains("/sync/") {
                    continue;
                }
                let source = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
                let bare = source.contains("sync::Ordering::");
                let code =
                    source.lines().zip(1_usize..).take_while(|(line, _)| !line.starts_with("#[cfg(all(test"));
                for (line, number) in code.filter(|(line, _)| names_an_order(line, bare)) {
                    // A call may begin some lines before its orders.
                    let met = used
                        .get(file.as_str())
                        .is_some_and(|lines| lines.range(number.saturating_sub(6)..=number).next().is_some());
                    if !met {
                        unused.push(format!("{file}:{number} {}", line.trim()));
                    }
                }
            }
        }
        unused.sort();
        Ok(unused)
    }

    /// The quickest model that fails without `order`.
    fn first_to_notice(&self, order: &str, users: &BTreeSet<String>) -> Option<String> {
        let mut users: Vec<&String> = users.iter().filter(|test| self.times.contains_key(*test)).collect();
        users.sort_by_key(|test| self.times[*test]);
        users.into_iter().find_map(|test| {
            let limit = self.times[test] * PATIENCE + Duration::from_secs(10);
            let end = self.ends(test, limit, &[("PNODE_WEAKEN", order)]);
            matches!(end, Ok(End::Failed)).then(|| test.clone())
        })
    }

    fn ends(&self, test: &str, limit: Duration, variables: &[(&str, &str)]) -> Result<End, String> {
        let mut child = Command::new(&self.binary)
            .args(["--exact", test, "--test-threads", "1"])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.binary.display()))?;
        let start = Instant::now();
        loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(End::Passed),
                Some(_) => return Ok(End::Failed),
                None if start.elapsed() > limit => {
                    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                    return Ok(End::GivenUp);
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}
