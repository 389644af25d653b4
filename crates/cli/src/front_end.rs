//! What stands before and after a model of audio: samples in frames or their spectra, and back. A small TOML file
//! beside the model says what it takes and gives.

use crate::arguments::{Wanted, fitted};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use recurve::{HostArray, HostData, OnnxModel, StatePair};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::f64::consts::PI;
use std::path::Path;
use std::sync::Arc;

/// What a model takes and gives, from the file beside it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// Samples a second.
    pub(crate) sample_rate: u32,
    /// The input that takes the audio.
    pub(crate) input: String,
    /// The output that is shown or written.
    pub(crate) output: String,
    /// What the output is.
    pub(crate) gives: Gives,
    /// Samples of a call.
    pub(crate) frame: usize,
    /// Samples from before a frame that come along, in front of it.
    #[serde(default)]
    pub(crate) context: usize,
    /// The model takes the spectrum of a frame, `[…, bins, …, 2]`, real and imaginary parts last. Frames then overlap:
    /// each begins `hop` samples after the one before.
    pub(crate) spectrum: Option<Spectrum>,
    /// Numbers that other inputs always have.
    #[serde(default)]
    pub(crate) constants: BTreeMap<String, i64>,
    /// Outputs that become inputs of the next call; by default those that their names show.
    #[serde(default)]
    pub(crate) states: BTreeMap<String, String>,
    /// Of probabilities: from where on it is speech.
    #[serde(default = "half")]
    pub(crate) threshold: f32,
}

fn half() -> f32 {
    0.5
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gives {
    /// The probability of speech in a frame.
    Probability,
    /// Samples of a frame.
    Samples,
    /// The spectrum of a frame.
    Spectrum,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spectrum {
    pub(crate) hop: usize,
    pub(crate) window: Window,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Window {
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

/// Samples of a frame, at most.
const MAX_FRAME: usize = 1 << 20;

impl Spec {
    /// The file beside a model, or another one.
    pub(crate) fn read(model: &Path, given: Option<&Path>) -> Result<Self, Box<dyn Error>> {
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

/// A front end for one model.
pub(crate) struct FrontEnd {
    pub(crate) spec: Spec,
    /// The shape of a call's input.
    shape: Vec<usize>,
    /// The inputs that are the same in every call.
    pub(crate) constants: Vec<(String, HostArray)>,
    fft: Option<Fft>,
}

struct Fft {
    hop: usize,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    analysis: Vec<f32>,
    synthesis: Vec<f32>,
}

/// A recording on its way through a model.
pub(crate) struct Track {
    /// Samples of the recording.
    pub(crate) count: usize,
    /// The samples; for spectra with their ends mirrored.
    x: Vec<f32>,
    /// Where the next frame begins.
    at: usize,
    /// The last samples before it.
    before: Vec<f32>,
    out: Vec<f32>,
}

impl FrontEnd {
    pub(crate) fn new(spec: Spec, model: &OnnxModel) -> Result<Self, Box<dyn Error>> {
        let input = |name: &str| {
            let found = model.inputs().iter().find(|i| i.name == name);
            found.ok_or_else(|| format!("the model has no input `{name}`"))
        };
        let audio = input(&spec.input)?;
        if model.outputs().iter().all(|o| o.name != spec.output) {
            return Err(format!("the model has no output `{}`", spec.output).into());
        }
        let count = match spec.spectrum {
            Some(_) => 2 * (spec.frame / 2 + 1),
            None => spec.context + spec.frame,
        };
        let shape = match Wanted::from(audio).dims {
            Some(dims) => fitted(&dims, count),
            None => Some(vec![1, count]),
        };
        let shape = shape
            .ok_or_else(|| format!("the input `{}` is {}, but a call has {count} numbers", audio.name, audio.kind))?;
        let constants = spec.constants.iter().map(|(name, v)| {
            let shape: Vec<usize> = input(name)?.kind.dims.iter().map(|d| d.size().unwrap_or(1)).collect();
            let data = HostData::Int(vec![*v; shape.iter().product()]);
            Ok::<_, String>((name.clone(), HostArray { shape, data }))
        });
        let constants = constants.collect::<Result<_, _>>()?;
        let fft = spec.spectrum.as_ref().map(|s| {
            let mut planner = RealFftPlanner::<f32>::new();
            let analysis = s.window.samples(spec.frame);
            let synthesis = if matches!(s.window, Window::SqrtHann) { analysis.clone() } else { vec![1.0; spec.frame] };
            let (forward, inverse) = (planner.plan_fft_forward(spec.frame), planner.plan_fft_inverse(spec.frame));
            Fft { hop: s.hop, forward, inverse, analysis, synthesis }
        });
        Ok(Self { spec, shape, constants, fft })
    }

    /// The states that the file names; none if the model's own are meant.
    pub(crate) fn states(&self) -> Vec<StatePair> {
        let pair = |(i, o): (&String, &String)| StatePair { input: i.clone(), output: o.clone() };
        self.spec.states.iter().map(pair).collect()
    }

    /// Samples from one call to the next.
    pub(crate) fn hop(&self) -> usize {
        self.fft.as_ref().map_or(self.spec.frame, |f| f.hop)
    }

    /// Seconds from one call to the next.
    pub(crate) fn seconds(&self) -> f64 {
        self.hop() as f64 / f64::from(self.spec.sample_rate)
    }

    /// The shape of a call's input.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// A recording before its first frame.
    pub(crate) fn begin(&self, x: Vec<f32>) -> Result<Track, Box<dyn Error>> {
        let count = x.len();
        if self.fft.is_none() {
            return Ok(Track { count, x, at: 0, before: vec![0.0; self.spec.context], out: Vec::new() });
        }
        let half = self.spec.frame / 2;
        if count <= half {
            return Err(format!("is shorter than half a frame, {half} samples").into());
        }
        // The ends are mirrored, so that a frame is centred at each of its hops.
        let at = |i: isize| {
            let last = count as isize - 1;
            let i = i.abs();
            x[(if i > last { 2 * last - i } else { i }) as usize]
        };
        let padded: Vec<f32> = (-(half as isize)..(count + half) as isize).map(at).collect();
        let out = vec![0.0; padded.len()];
        Ok(Track { count, x: padded, at: 0, before: Vec::new(), out })
    }

    /// What the next call takes; `None` at the end.
    pub(crate) fn next(&self, track: &mut Track) -> Result<Option<HostArray>, Box<dyn Error>> {
        let (frame, context) = (self.spec.frame, self.spec.context);
        let numbers = if let Some(fft) = &self.fft {
            let Some(x) = track.x.get(track.at..track.at + frame) else { return Ok(None) };
            let (mut time, mut bins) = (fft.forward.make_input_vec(), fft.forward.make_output_vec());
            time.iter_mut().zip(x).zip(&fft.analysis).for_each(|((t, x), w)| *t = x * w);
            fft.forward.process(&mut time, &mut bins)?;
            bins.iter().flat_map(|c| [c.re, c.im]).collect()
        } else {
            let Some(x) = track.x.get(track.at..).filter(|x| !x.is_empty()) else { return Ok(None) };
            let mut numbers = track.before.clone();
            numbers.extend_from_slice(&x[..x.len().min(frame)]);
            numbers.resize(context + frame, 0.0);
            track.before.copy_from_slice(&numbers[frame..]);
            track.at += frame;
            numbers
        };
        Ok(Some(HostArray { shape: self.shape.clone(), data: HostData::Float(numbers) }))
    }

    /// Takes what the call gave.
    pub(crate) fn take(&self, track: &mut Track, y: &[f32]) -> Result<(), Box<dyn Error>> {
        let Some(fft) = &self.fft else {
            track.out.extend_from_slice(y);
            return Ok(());
        };
        let (mut bins, mut time) = (fft.inverse.make_input_vec(), fft.inverse.make_output_vec());
        if y.len() != 2 * bins.len() {
            return Err(format!("the output has {} numbers, but a spectrum has {}", y.len(), 2 * bins.len()).into());
        }
        for (bin, y) in bins.iter_mut().zip(y.chunks_exact(2)) {
            *bin = Complex::new(y[0], y[1]);
        }
        // A real signal has none here.
        bins[0].im = 0.0;
        let n = self.spec.frame;
        if n.is_multiple_of(2) {
            bins[n / 2].im = 0.0;
        }
        fft.inverse.process(&mut bins, &mut time)?;
        for ((o, t), w) in track.out[track.at..].iter_mut().zip(&time).zip(&fft.synthesis) {
            *o += t / n as f32 * w;
        }
        track.at += fft.hop;
        Ok(())
    }

    /// What came of the recording: a probability a frame, or samples, as many as it had.
    pub(crate) fn finish(&self, track: Track) -> Vec<f32> {
        let mut out = track.out;
        if self.fft.is_some() {
            out.drain(..self.spec.frame / 2);
        }
        if self.spec.gives != Gives::Probability {
            out.resize(track.count, 0.0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
