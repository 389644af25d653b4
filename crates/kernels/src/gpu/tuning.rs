//! Measuring which layout runs a shape fastest, and storing the choice on disk.

use super::{GpuLayer, Layout};
use crate::CellKind;
use crate::call::{Call, ForwardArgs, Input, Outputs, Sizes, ValidSteps};
use recurve_shaders::Element;
use recurve_tensor::cpu::host;
use recurve_tensor::{Device, Result, Shape, Tensor};
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Choices by key, from the file and from this process.
static CHOICES: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(|| Mutex::new(load()));

/// Held during a measurement, because simultaneous measurements would disturb each other.
static MEASURING: Mutex<()> = Mutex::new(());

/// The layouts of a layer for the shapes for which it was tuned.
#[derive(Debug, Default)]
pub(super) struct Plans {
    /// The name of the fastest layout for each bucket of shapes.
    choices: HashMap<[usize; 2], String>,
    /// The layout of that name for each shape; `None` if a shape does not have that layout.
    layouts: HashMap<[usize; 2], Option<Layout>>,
}

/// Largest number of shapes whose layouts are kept.
const MOST_PLANS: usize = 256;

/// Batch size and timesteps rounded up to powers of two. Shapes of one bucket share a choice.
fn bucket(batch: usize, timesteps: usize) -> [usize; 2] {
    [batch.next_power_of_two(), timesteps.next_power_of_two().min(4 * LONGEST)]
}

/// The file for choices: `RECURVE_TUNING_FILE`, or a file in the user's cache folder. `None` if there is no such folder
/// or the variable is empty.
fn file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(file) = std::env::var_os("RECURVE_TUNING_FILE") {
        return Some(PathBuf::from(file)).filter(|f| !f.as_os_str().is_empty());
    }
    let folder = set("XDG_CACHE_HOME")
        .or_else(|| set("LOCALAPPDATA"))
        .or_else(|| set("HOME").map(|h| h.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" })))?;
    Some(folder.join("recurve").join("tuning.tsv"))
}

/// Largest number of bytes that are read from the file; a line has some hundred.
const MAX_FILE: u64 = 1 << 22;

/// The contents of the file. Anything but a regular file is ignored, because reading a device or a pipe may never end.
fn load() -> HashMap<String, String> {
    let mut text = Vec::new();
    if let Some(path) = file()
        && std::fs::metadata(&path).is_ok_and(|m| m.is_file())
        && let Ok(file) = std::fs::File::open(path)
        && file.take(MAX_FILE).read_to_end(&mut text).is_err()
    {
        text.clear();
    }
    parse(&text)
}

/// Parses lines of a key, a tab and a choice. Of equal keys the last line counts; other lines are ignored.
fn parse(text: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(text);
    // Text after the last line break is incomplete: it is being written, or its writer was killed.
    let complete = &text[..text.rfind('\n').map_or(0, |n| n + 1)];
    let pairs = complete.lines().filter_map(|l| l.split_once('\t'));
    pairs.map(|(k, c)| (k.to_owned(), c.to_owned())).collect()
}

/// Appends a line. If that fails, the next process measures again.
fn keep(key: &str, choice: &str) {
    let Some(path) = file() else { return };
    let _ = path.parent().map(std::fs::create_dir_all);
    if std::fs::metadata(&path).is_ok_and(|m| !m.is_file()) {
        return;
    }
    let Ok(mut f) = std::fs::OpenOptions::new().append(true).read(true).create(true).open(path) else { return };
    // Other processes wait for the lock, where the file system supports locks. It is released when the file is closed.
    let _ = f.lock();
    let mut last = [b'\n'];
    let _ = f.seek(SeekFrom::End(-1)).and_then(|_| f.read_exact(&mut last));
    // If the last line is incomplete, the new line must not become a part of it.
    let begin = if last == *b"\n" { "" } else { "\n" };
    let _ = f.write_all(format!("{begin}{key}\t{choice}\n").as_bytes());
}

/// Largest number of timesteps of a measurement.
const LONGEST: usize = 256;
const ROUNDS: usize = 5;

impl GpuLayer {
    /// The key of a choice: the adapter, its driver, Recurve's version, the layer, and the bucket of the shape.
    fn tuning_key(&self, [batch, timesteps]: [usize; 2]) -> String {
        let a = self.gpu.summary();
        let clean = |s: &str| s.replace(['\t', '\n'], " ");
        let kind = match self.code.cell.kind {
            CellKind::Gru { reset_after: false } => "gru_reset_before",
            kind => kind.name(),
        };
        let dtype = if self.code.weights == Element::F16 { "f16" } else { "f32" };
        format!(
            "{} {} {} recurve {} {kind} {dtype} I{} H{} D{} B{} T{}",
            clean(&a.name),
            a.backend,
            clean(&a.driver),
            env!("CARGO_PKG_VERSION"),
            self.input,
            self.hidden,
            self.directions.len(),
            batch,
            timesteps,
        )
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layout that [`Self::tune`] found for this shape, if any.
    pub(super) fn tuned(&self, batch: usize, timesteps: usize) -> Option<Layout> {
        let mut plans = self.plans();
        // Most layers are never tuned, so this is the common exit.
        let choice = plans.choices.get(&bucket(batch, timesteps))?.clone();
        if let Some(layout) = plans.layouts.get(&[batch, timesteps]) {
            return *layout;
        }
        // Shapes of one bucket may have different layouts.
        let all = self.layouts(batch, timesteps).ok()?;
        let layout = all.into_iter().find(|l| l.to_string() == choice);
        if plans.layouts.len() >= MOST_PLANS {
            plans.layouts.clear();
        }
        plans.layouts.insert([batch, timesteps], layout);
        layout
    }

    /// Finds the fastest layout for this shape, by looking it up or by measuring.
    pub(crate) fn tune(&self, batch: usize, timesteps: usize) -> Result<()> {
        let bucket = bucket(batch, timesteps);
        let choice = self.fastest(batch, timesteps, &self.tuning_key(bucket))?.to_string();
        let mut plans = self.plans();
        plans.layouts.clear();
        plans.choices.insert(bucket, choice);
        Ok(())
    }

    fn fastest(&self, batch: usize, timesteps: usize, key: &str) -> Result<Layout> {
        let all = self.layouts(batch, timesteps)?;
        let lock = || CHOICES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = || {
            let name = lock().get(key).cloned()?;
            all.iter().copied().find(|c| c.to_string() == name)
        };
        if let Some(c) = known() {
            return Ok(c);
        }
        let _measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread or process may have measured this shape meanwhile.
        if let Some(c) = known() {
            return Ok(c);
        }
        if let Some(name) = load().remove(key) {
            lock().insert(key.to_owned(), name);
            if let Some(c) = known() {
                return Ok(c);
            }
        }
        let best = self.measure(&all, batch, timesteps)?;
        lock().insert(key.to_owned(), best.to_string());
        keep(key, &best.to_string());
        Ok(best)
    }

    /// Times all candidates in turn, for several rounds. Candidates that fail, or whose results differ from the first
    /// one's, are left out.
    fn measure(&self, all: &[Layout], batch: usize, timesteps: usize) -> Result<Layout> {
        let sizes = Sizes {
            batch,
            timesteps: timesteps.min(LONGEST),
            input: self.input,
            hidden: self.hidden,
            width: self.width,
            carried: self.code.cell.state_sizes(self.hidden).1.unwrap_or(self.hidden),
            directions: self.directions.len(),
        };
        let dims = [batch, sizes.timesteps, self.input];
        let count = Shape::new(&dims).map_or(usize::MAX, |s| s.count());
        let mut x = host("Recurrent::tune", count)?;
        x.iter_mut().enumerate().for_each(|(n, x)| *x = (n * 7919 % 2003) as f32 / 1001.5 - 1.0);
        let x = Tensor::from_f32(&x, &dims, &Device::Gpu(self.gpu.clone()))?;
        let call = Call {
            input: Input::Features(&x),
            sizes,
            h0: None,
            c0: None,
            valid: ValidSteps::All,
            time_major: false,
            outputs: Outputs::All,
            reading_order: false,
            projection_budget: ForwardArgs::default().projection_budget,
        };
        let run = |layout: Layout| -> Result<(f64, Vec<f32>)> {
            let start = Instant::now();
            let h = self.forward(layout, &call)?.h.to_vec()?;
            Ok((start.elapsed().as_secs_f64(), h))
        };
        let mut times: Vec<(Layout, Vec<f64>)> = Vec::new();
        let mut first: Option<Vec<f32>> = None;
        for &c in all {
            // The first run includes compilation and is not timed.
            let Ok((_, h)) = run(c) else { continue };
            let same = |a: &[f32]| a.iter().zip(&h).all(|(a, b)| (a - b).abs() <= 1e-3 + 1e-3 * a.abs());
            if first.get_or_insert_with(|| h.clone()).len() == h.len() && first.as_deref().is_some_and(same) {
                times.push((c, Vec::with_capacity(ROUNDS)));
            }
        }
        for _ in 0..ROUNDS {
            for (c, t) in &mut times {
                t.push(run(*c)?.0);
            }
        }
        let median = |t: &mut Vec<f64>| {
            t.sort_by(f64::total_cmp);
            t[t.len() / 2]
        };
        let best = times.iter_mut().map(|(c, t)| (*c, median(t))).min_by(|a, b| a.1.total_cmp(&b.1));
        // If no candidate could be timed, the error is that of the first one.
        match best {
            Some((c, _)) => Ok(c),
            None => run(all[0]).map(|_| all[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of equal keys the last line counts. Other contents of a file have at most the effect that a choice is not found.
    #[test]
    fn any_file_is_read() {
        let known = parse(b"nonsense\nkey a\tscan\n\xff\xfe\tstep\nkey a\tgrid\tmore\n\t\nkey b");
        assert_eq!(known.get("key a").map(String::as_str), Some("grid\tmore"));
        assert_eq!(known.len(), 3);
        assert!(parse(&[0; 1 << 16]).is_empty());
        // Pseudo-random bytes, most of them those that have a meaning in the file.
        let mut state = 1u64;
        for _ in 0..2000 {
            let mut bytes = Vec::new();
            for _ in 0..200 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push(*b"\t\n\r abc\xff\0".get((state >> 60) as usize).unwrap_or(&(state >> 40).to_le_bytes()[0]));
            }
            let lines = bytes.split(|&b| b == b'\n').filter(|l| l.contains(&b'\t')).count();
            assert!(parse(&bytes).len() <= lines);
        }
    }
}
