//! Audio through a model, frame by frame: `recurve run MODEL --wav IN.wav`. A small TOML file beside the model says
//! what the model takes and gives.

use crate::Outcome;
use crate::arguments::{check_output, write_output};
use crate::run::Arguments;
use crate::terminal::{print_json, progress, say};
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use recurve::{Device, HostArray, HostData, OnnxModel, OnnxSession, StatePair};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::error::Error;
use std::f64::consts::PI;
use std::io::Cursor;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// What a model takes and gives, from the file beside it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Samples a second.
    sample_rate: u32,
    /// The input that takes the audio.
    input: String,
    /// The output that is shown or written.
    output: String,
    /// What the output is.
    gives: Gives,
    /// Samples of a call.
    frame: usize,
    /// Samples from before a frame that come along, in front of it.
    #[serde(default)]
    context: usize,
    /// The model takes the spectrum of a frame, `[…, bins, …, 2]`, real and imaginary parts last. Frames then overlap:
    /// each begins `hop` samples after the one before.
    spectrum: Option<Spectrum>,
    /// Numbers that other inputs always have.
    #[serde(default)]
    constants: BTreeMap<String, i64>,
    /// Outputs that become inputs of the next call; by default those that their names show.
    #[serde(default)]
    states: BTreeMap<String, String>,
    /// Of probabilities: from where on it is speech.
    #[serde(default = "half")]
    threshold: f32,
}

fn half() -> f32 {
    0.5
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Gives {
    /// The probability of speech in a frame.
    Probability,
    /// Samples of a frame.
    Samples,
    /// The spectrum of a frame.
    Spectrum,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spectrum {
    hop: usize,
    window: Window,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Window {
    /// The square root of a periodic Hann window, for analysis and for synthesis.
    SqrtHann,
    /// A periodic Hann window for analysis, none for synthesis.
    Hann,
}

impl Window {
    fn samples(self, count: usize) -> Vec<f32> {
        let hann = |n: usize| 0.5 - 0.5 * (2.0 * PI * n as f64 / count as f64).cos();
        let one = |n: usize| match self {
            Self::SqrtHann => hann(n).sqrt() as f32,
            Self::Hann => hann(n) as f32,
        };
        (0..count).map(one).collect()
    }
}

/// Samples of a frame, at most, and of a file.
const MAX_FRAME: usize = 1 << 20;
const MAX_SAMPLES: u64 = 1 << 31;

impl Spec {
    /// The file beside a model, or another one.
    fn read(model: &Path, given: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let path = given.map_or_else(|| model.with_extension("toml"), Path::to_path_buf);
        let text = std::fs::read_to_string(&path).map_err(|e| {
            format!("{}: {e}; `--wav` needs a file that says what the model takes (see docs/audio.md)", path.display())
        })?;
        let spec: Self = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let bad = |message: &str| Err(format!("{}: {message}", path.display()).into());
        if !(1..=MAX_FRAME).contains(&spec.frame) || spec.context > MAX_FRAME || spec.sample_rate == 0 {
            return bad("`frame` must be from 1 to 1048576, `context` at most as much, and `sample_rate` not 0");
        }
        if let Some(s) = &spec.spectrum
            && (!(1..=spec.frame).contains(&s.hop) || spec.context > 0 || spec.frame < 2)
        {
            return bad(
                "with a spectrum `hop` must be from 1 to `frame`, `frame` at least 2, and there is no `context`",
            );
        }
        if (spec.gives == Gives::Spectrum) != spec.spectrum.is_some() {
            return bad("`gives = \"spectrum\"` and a section `[spectrum]` go together");
        }
        if !(0.0..=1.0).contains(&spec.threshold) {
            return bad("`threshold` must be from 0 to 1");
        }
        Ok(spec)
    }
}

/// The samples of a file with one channel, or of several the mean.
fn read_wav(path: &Path, rate: u32) -> Result<Vec<f32>, Box<dyn Error>> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut reader = hound::WavReader::open(path).map_err(|e| at(&e))?;
    let spec = reader.spec();
    if spec.sample_rate != rate {
        let message =
            format!("has {} samples a second, but the model takes {rate}; convert it first", spec.sample_rate);
        return Err(at(&message).into());
    }
    let channels = usize::from(spec.channels);
    if channels == 0 || u64::from(reader.len()) > MAX_SAMPLES {
        return Err(at(&"has no channels, or more samples than are read").into());
    }
    let all: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>().map_err(|e| at(&e))?,
        hound::SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
            let wide = reader.samples::<i32>().map(|s| s.map(|s| s as f32 * scale));
            wide.collect::<Result<_, _>>().map_err(|e| at(&e))?
        }
    };
    if all.len() < channels {
        return Err(at(&"has no samples").into());
    }
    Ok(all.chunks_exact(channels).map(|c| c.iter().sum::<f32>() / channels as f32).collect())
}

fn write_wav(path: &Path, rate: u32, samples: &[f32]) -> Result<(), Box<dyn Error>> {
    let spec =
        hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec)?;
    for s in samples {
        writer.write_sample((s * 32768.0).round().clamp(-32768.0, 32767.0) as i16)?;
    }
    writer.finalize()?;
    Ok(write_output(path, bytes.get_ref())?)
}

/// A model with its states, one call after the other.
struct Stream<'a> {
    session: OnnxSession,
    spec: &'a Spec,
    shape: Vec<usize>,
    constants: Vec<(String, HostArray)>,
}

impl<'a> Stream<'a> {
    fn new(model: OnnxModel, spec: &'a Spec) -> Result<Self, Box<dyn Error>> {
        let model = Arc::new(model);
        let session = if spec.states.is_empty() {
            OnnxSession::new(model.clone(), 1)?
        } else {
            let pairs: Vec<_> =
                spec.states.iter().map(|(i, o)| StatePair { input: i.clone(), output: o.clone() }).collect();
            OnnxSession::with_states(model.clone(), &pairs, 1)?
        };
        let input = model.inputs().iter().find(|i| i.name == spec.input);
        let input = input.ok_or_else(|| format!("the model has no input `{}`", spec.input))?;
        if model.outputs().iter().all(|o| o.name != spec.output) {
            return Err(format!("the model has no output `{}`", spec.output).into());
        }
        let count = match spec.spectrum {
            Some(_) => 2 * (spec.frame / 2 + 1),
            None => spec.context + spec.frame,
        };
        // The last open dimension is what is left of the samples; others are 1.
        let mut shape: Vec<usize> = input.kind.dims.iter().map(|d| d.size().unwrap_or(1)).collect();
        if input.kind.unranked {
            shape = vec![1, count];
        }
        let known: usize = shape.iter().product();
        if known != count
            && let Some(n) = input.kind.dims.iter().rposition(|d| d.size().is_none())
            && known > 0
            && count.is_multiple_of(known)
        {
            shape[n] = count / known;
        }
        if shape.iter().product::<usize>() != count {
            return Err(format!("the input `{}` is {}, but a call has {count} numbers", input.name, input.kind).into());
        }
        let constants = spec.constants.iter().map(|(name, v)| {
            let input = model.inputs().iter().find(|i| i.name == *name);
            let input = input.ok_or_else(|| format!("the model has no input `{name}`"))?;
            let shape: Vec<usize> = input.kind.dims.iter().map(|d| d.size().unwrap_or(1)).collect();
            let data = HostData::Int(vec![*v; shape.iter().product()]);
            Ok::<_, String>((name.clone(), HostArray { shape, data }))
        });
        let constants = constants.collect::<Result<_, _>>()?;
        Ok(Self { session, spec, shape, constants })
    }

    fn call(&mut self, numbers: Vec<f32>) -> Result<Vec<f32>, Box<dyn Error>> {
        let x = HostArray { shape: self.shape.clone(), data: HostData::Float(numbers) };
        let constants = self.constants.iter().map(|(n, a)| (n.as_str(), a));
        let outputs = self.session.run(constants.chain([(self.spec.input.as_str(), &x)]))?;
        let output = outputs.into_iter().find(|(name, _)| *name == self.spec.output);
        let (_, y) = output.ok_or_else(|| format!("`{}` is a state, so it does not come out", self.spec.output))?;
        Ok(y.to_f32())
    }

    /// What comes of frames that follow each other.
    fn frames(&mut self, x: &[f32], mut step: impl FnMut()) -> Result<Vec<f32>, Box<dyn Error>> {
        let (frame, context) = (self.spec.frame, self.spec.context);
        let mut before = vec![0.0; context];
        let mut all = Vec::new();
        for part in x.chunks(frame) {
            let mut numbers = before.clone();
            numbers.extend_from_slice(part);
            numbers.resize(context + frame, 0.0);
            before.copy_from_slice(&numbers[frame..]);
            all.extend(self.call(numbers)?);
            step();
        }
        Ok(all)
    }

    /// What comes of overlapping frames through their spectra, as long as what goes in.
    fn spectra(&mut self, s: &Spectrum, x: &[f32], mut step: impl FnMut()) -> Result<Vec<f32>, Box<dyn Error>> {
        let (n, hop) = (self.spec.frame, s.hop);
        let half = n / 2;
        if x.len() <= half {
            return Err(format!("is shorter than half a frame, {half} samples").into());
        }
        // The ends are mirrored, so that a frame is centred at each of its hops.
        let at = |i: isize| {
            let last = x.len() as isize - 1;
            let i = i.abs();
            x[(if i > last { 2 * last - i } else { i }) as usize]
        };
        let padded: Vec<f32> = (-(half as isize)..(x.len() + half) as isize).map(at).collect();
        let window = s.window.samples(n);
        let synthesis = if matches!(s.window, Window::SqrtHann) { window.clone() } else { vec![1.0; n] };
        let mut planner = RealFftPlanner::<f32>::new();
        let (forward, inverse) = (planner.plan_fft_forward(n), planner.plan_fft_inverse(n));
        let mut out = vec![0.0; padded.len()];
        let (mut time, mut bins) = (forward.make_input_vec(), forward.make_output_vec());
        for first in (0..=padded.len().saturating_sub(n)).step_by(hop) {
            for ((t, x), w) in time.iter_mut().zip(&padded[first..]).zip(&window) {
                *t = x * w;
            }
            forward.process(&mut time, &mut bins)?;
            let y = self.call(bins.iter().flat_map(|c| [c.re, c.im]).collect())?;
            if y.len() != 2 * bins.len() {
                return Err(format!("the output has {} numbers, but a spectrum has {}", y.len(), 2 * bins.len()).into());
            }
            for (bin, y) in bins.iter_mut().zip(y.chunks_exact(2)) {
                *bin = Complex::new(y[0], y[1]);
            }
            // A real signal has none here.
            bins[0].im = 0.0;
            if n.is_multiple_of(2) {
                bins[half].im = 0.0;
            }
            inverse.process(&mut bins, &mut time)?;
            for ((o, t), w) in out[first..].iter_mut().zip(&time).zip(&synthesis) {
                *o += t / n as f32 * w;
            }
            step();
        }
        Ok(out[half..half + x.len()].to_vec())
    }
}

/// Speech begins where the probability reaches the threshold, and ends where it has been below the threshold less
/// this for a while.
const HYSTERESIS: f32 = 0.15;
/// Seconds: silences that are shorter end no speech, speech that is shorter is none, and what is added on both sides.
const MIN_SILENCE: f64 = 0.1;
const MIN_SPEECH: f64 = 0.25;
const PAD: f64 = 0.03;

/// Where there is speech, in seconds, by the probability of each frame.
fn segments(probabilities: &[f32], seconds: f64, threshold: f32) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = Vec::new();
    let (mut begin, mut quiet): (Option<f64>, Option<f64>) = (None, None);
    for (n, &p) in probabilities.iter().enumerate() {
        let now = n as f64 * seconds;
        if p >= threshold {
            begin.get_or_insert(now);
            quiet = None;
        } else if let Some(first) = begin
            && p < threshold - HYSTERESIS
        {
            let since = *quiet.get_or_insert(now);
            if now + seconds - since >= MIN_SILENCE {
                all.push((first, since));
                (begin, quiet) = (None, None);
            }
        }
    }
    let end = probabilities.len() as f64 * seconds;
    all.extend(begin.map(|first| (first, end)));
    all.retain(|(a, b)| b - a >= MIN_SPEECH);
    all.into_iter().map(|(a, b)| ((a - PAD).max(0.0), (b + PAD).min(end))).collect()
}

/// Runs a model over a file.
pub(crate) fn run(a: &Arguments, wav: &Path) -> Outcome {
    let spec = Spec::read(&a.model, a.audio.as_deref())?;
    if let Some(path) = &a.wav_output {
        if spec.gives == Gives::Probability {
            return Err("`-o` is for models that give audio; this one gives probabilities".into());
        }
        check_output(path)?;
    }
    let device = Device::open(&a.device)?;
    let model = OnnxModel::open(&a.model, &device)?;
    let x = read_wav(wav, spec.sample_rate)?;
    let mut stream = Stream::new(model, &spec)?;
    let hop = spec.spectrum.as_ref().map_or(spec.frame, |s| s.hop);
    let bar = progress(x.len().div_ceil(hop));
    let started = Instant::now();
    let y = match &spec.spectrum {
        Some(s) => stream.spectra(s, &x, || bar.inc(1)),
        None => stream.frames(&x, || bar.inc(1)),
    };
    let y = y.map_err(|e| format!("{}: {e}", wav.display()))?;
    bar.finish_and_clear();
    let took = started.elapsed().as_secs_f64();
    let seconds = x.len() as f64 / f64::from(spec.sample_rate);
    let speech = (spec.gives == Gives::Probability)
        .then(|| segments(&y, spec.frame as f64 / f64::from(spec.sample_rate), spec.threshold));
    if let (Some(path), Gives::Samples | Gives::Spectrum) = (&a.wav_output, spec.gives) {
        let mut y = y;
        y.resize(x.len(), 0.0);
        write_wav(path, spec.sample_rate, &y)?;
    }
    let output = a.wav_output.as_ref().map(|p| p.display().to_string());
    if a.json {
        let speech = speech.map(|s| s.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>());
        print_json(&json!({
            "model": a.model.display().to_string(), "device": device.to_string(), "wav": wav.display().to_string(),
            "seconds": seconds, "speech": speech, "output": output, "ms": took * 1e3,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("device: {device}"))?;
    say(format_args!("model:  {}", a.model.display()))?;
    for s in stream.session.states() {
        say(format_args!("state:  {} <- {}", s.input, s.output))?;
    }
    if let Some(speech) = speech {
        speech.iter().try_for_each(|(a, b)| say(format_args!("speech  {a:8.3} s to {b:8.3} s")))?;
        if speech.is_empty() {
            say("no speech")?;
        }
    }
    if let Some(output) = output {
        say(format_args!("wrote   {output}"))?;
    }
    say(format_args!("{:.2} s of audio in {:.3} s, {:.0} times real time", seconds, took, seconds / took.max(1e-9)))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_begin_and_end_where_probabilities_say() {
        let frame = 0.032;
        let mut p = vec![0.0f32; 100];
        p[10..30].fill(0.9);
        // A short silence, and one that is above the lower threshold.
        p[15] = 0.1;
        p[20..28].fill(0.4);
        p[50..53].fill(0.9);
        p[90..].fill(0.7);
        let all = segments(&p, frame, 0.5);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!((all[0].0 - (10.0 * frame - PAD)).abs() < 1e-9 && (all[0].1 - (30.0 * frame + PAD)).abs() < 1e-9);
        assert!((all[1].0 - (90.0 * frame - PAD)).abs() < 1e-9 && (all[1].1 - 100.0 * frame).abs() < 1e-9);
        assert!(segments(&[], frame, 0.5).is_empty() && segments(&[0.0; 9], frame, 0.5).is_empty());
    }

    #[test]
    fn windows_add_up() {
        let w = Window::SqrtHann.samples(512);
        for n in 0..256 {
            assert!((w[n] * w[n] + w[n + 256] * w[n + 256] - 1.0).abs() < 1e-6);
        }
        let w = Window::Hann.samples(8);
        assert!(w[0] == 0.0 && (w[4] - 1.0).abs() < 1e-7);
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = dir.path().join("m.onnx");
        let read = |text: &str| {
            std::fs::write(model.with_extension("toml"), text).expect("a file");
            Spec::read(&model, None).map(|_| ()).map_err(|e| e.to_string())
        };
        let good = "sample_rate = 16000\ninput = \"x\"\noutput = \"y\"\ngives = \"probability\"\nframe = 512\n";
        assert_eq!(read(good), Ok(()));
        for (line, word) in [
            ("colour = 3\n", "colour"),
            ("threshold = 2.0\n", "threshold"),
            ("[spectrum]\nhop = 4\nwindow = \"hann\"\n", "spectrum"),
        ] {
            let e = read(&format!("{good}{line}")).expect_err("refused");
            assert!(e.contains(word) && e.contains("m.toml"), "{e}");
        }
        assert!(read(&good.replace("512", "0")).expect_err("refused").contains("frame"));
        assert!(Spec::read(Path::new("/nowhere/m.onnx"), None).is_err());
    }
}
