//! What stands before, between and after models of audio: samples in frames, their spectra, and back. A small TOML file
//! says what each model takes and gives.

use crate::arguments::{Wanted, fitted};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use recurve::{HostArray, HostData, OnnxModel, StatePair};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::f64::consts::PI;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// How a recording goes through models.
pub(crate) struct Spec {
    /// The file that says so.
    path: PathBuf,
    /// Samples a second.
    pub(crate) sample_rate: u32,
    /// Samples of a frame.
    frame: usize,
    /// Samples from one frame to the next.
    hop: usize,
    /// Samples from before a frame that come along, in front of it.
    context: usize,
    window: Window,
    ends: Ends,
    /// Of probabilities: from where on it is speech.
    pub(crate) threshold: f32,
    /// The models, from first to last; at least one.
    pub(crate) stages: Vec<Stage>,
}

/// The file. Keys of a stage stand at its top if there is one stage.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sample_rate: u32,
    frame: usize,
    hop: Option<usize>,
    #[serde(default)]
    context: usize,
    #[serde(default)]
    window: Window,
    #[serde(default)]
    ends: Ends,
    #[serde(default = "half")]
    threshold: f32,
    #[serde(default)]
    stage: Vec<Stage>,
    model: Option<String>,
    input: Option<String>,
    output: Option<String>,
    takes: Option<Takes>,
    gives: Option<Gives>,
    constants: Option<BTreeMap<String, i64>>,
    states: Option<BTreeMap<String, String>>,
}

/// One model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    /// The file, in the folder of the description.
    model: Option<String>,
    /// The input that takes the audio.
    pub(crate) input: String,
    /// The output that is passed on.
    pub(crate) output: String,
    #[serde(default)]
    takes: Takes,
    gives: Gives,
    /// Numbers that other inputs always have.
    #[serde(default)]
    constants: BTreeMap<String, i64>,
    /// Outputs that become inputs of the next call; by default those that their names show.
    #[serde(default)]
    states: BTreeMap<String, String>,
}

fn half() -> f32 {
    0.5
}

/// What a model takes of a frame.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Takes {
    #[default]
    Samples,
    /// The real and the imaginary part of each bin.
    Spectrum,
    /// The absolute value of each bin.
    Magnitude,
}

/// What a model gives for a frame.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Gives {
    /// The probability of speech.
    Probability,
    Samples,
    /// The real and the imaginary part of each bin.
    Spectrum,
    /// A factor for each bin.
    Mask,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Window {
    #[default]
    None,
    /// The square root of a periodic Hann window, for analysis and for synthesis.
    SqrtHann,
    /// A periodic Hann window for analysis, none for synthesis.
    Hann,
}

/// Where the first and the last frame lie.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Ends {
    /// A frame ends with the samples of its hop, and zeros stand before the recording. The result is late.
    #[default]
    Live,
    /// The same, and the result is moved back to its place.
    Zeros,
    /// A frame is centred at its hop, and half a frame is mirrored at both ends.
    Mirrored,
}

impl Window {
    fn samples(self, count: usize) -> Vec<f32> {
        let hann = |n: usize| 0.5 - 0.5 * (2.0 * PI * n as f64 / count as f64).cos();
        let one = |n: usize| match self {
            Self::None => 1.0,
            Self::SqrtHann => hann(n).sqrt() as f32,
            Self::Hann => hann(n) as f32,
        };
        (0..count).map(one).collect()
    }
}

/// Samples of a frame, at most.
const MAX_FRAME: usize = 1 << 20;
/// Models of a file, at most.
const MAX_STAGES: usize = 16;

impl Spec {
    /// Whether a file says how recordings go through models, and not what a network is made of.
    pub(crate) fn is_one(path: &Path) -> bool {
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"))
    }

    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            format!("{}: {e}; `--wav` needs a file that says what the model takes (see docs/audio.md)", path.display())
        })?;
        let file: File = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::of(file, path).map_err(|e| format!("{}: {e}", path.display()).into())
    }

    fn of(file: File, path: &Path) -> Result<Self, String> {
        let stages = stages(&file)?;
        let File { sample_rate, frame, context, window, ends, threshold, .. } = file;
        let hop = file.hop.unwrap_or(frame);
        if !(1..=MAX_FRAME).contains(&frame) || context > MAX_FRAME || sample_rate == 0 {
            return Err("`frame` must be from 1 to 1048576, `context` at most as much, and `sample_rate` not 0".into());
        }
        if !(1..=frame).contains(&hop) {
            return Err(format!("`hop` must be from 1 to `frame`, {frame}"));
        }
        if !(0.0..=1.0).contains(&threshold) {
            return Err("`threshold` must be from 0 to 1".into());
        }
        let spectral = |s: &Stage| s.takes != Takes::Samples || matches!(s.gives, Gives::Spectrum | Gives::Mask);
        if frame < 2 && (ends == Ends::Mirrored || stages.iter().any(spectral)) {
            return Err("`frame` must be at least 2 for a spectrum, and where the ends are mirrored".into());
        }
        let plain = hop == frame && ends == Ends::Live && matches!(window, Window::None);
        if context > 0 && !(plain && stages[0].takes == Takes::Samples) {
            return Err("`context` goes with samples in frames that do not overlap: without `hop`, `window`, `ends` \
                        and `takes`"
                .into());
        }
        for (n, stage) in stages.iter().enumerate() {
            let last = n + 1 == stages.len();
            if stage.gives == Gives::Probability && !last {
                return Err(format!("stage {}: only the last stage gives probabilities", n + 1));
            }
            if let Some(model) = &stage.model
                && (model.is_empty() || !Path::new(model).components().all(|c| matches!(c, Component::Normal(_))))
            {
                return Err(format!(
                    "`model` must be a file in the folder of this one or below it, but it is `{model}`"
                ));
            }
        }
        Ok(Self { path: path.to_path_buf(), sample_rate, frame, hop, context, window, ends, threshold, stages })
    }

    /// The files of the models; `given` is the one of the command.
    pub(crate) fn models(&self, given: &Path) -> Result<Vec<PathBuf>, String> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let whole = given == self.path;
        match &self.stages[..] {
            [Stage { model: None, .. }] if !whole => Ok(vec![given.to_path_buf()]),
            _ if !whole => {
                let path = self.path.display();
                Err(format!("{path}: names its models itself: `recurve run {path} --wav …`"))
            }
            all => {
                let named = |s: &Stage| Some(folder.join(s.model.as_ref()?));
                let path = self.path.display();
                let all: Option<Vec<_>> = all.iter().map(named).collect();
                all.ok_or_else(|| format!("{path}: names no `model`, so give the ONNX file and this one by `--audio`"))
            }
        }
    }

    /// Whether what comes out is the probability of speech, and not audio.
    pub(crate) fn gives_probability(&self) -> bool {
        self.stages.last().is_some_and(|s| s.gives == Gives::Probability)
    }

    /// Samples from one call to the next.
    pub(crate) fn hop(&self) -> usize {
        self.hop
    }

    /// Seconds from one call to the next.
    pub(crate) fn seconds(&self) -> f64 {
        self.hop as f64 / f64::from(self.sample_rate)
    }
}

/// The stages of a file.
fn stages(file: &File) -> Result<Vec<Stage>, String> {
    let top = [
        ("model", file.model.is_some()),
        ("input", file.input.is_some()),
        ("output", file.output.is_some()),
        ("takes", file.takes.is_some()),
        ("gives", file.gives.is_some()),
        ("constants", file.constants.is_some()),
        ("states", file.states.is_some()),
    ];
    if !file.stage.is_empty() {
        if file.stage.len() > MAX_STAGES {
            return Err(format!("has {} stages, but at most {MAX_STAGES} are run", file.stage.len()));
        }
        if let Some((key, _)) = top.iter().find(|(_, given)| *given) {
            return Err(format!("`{key}` belongs into a section `[[stage]]`, because there are some"));
        }
        return Ok(file.stage.clone());
    }
    let missing = |key: &str| format!("has no `{key}`, and no section `[[stage]]` that could have it");
    Ok(vec![Stage {
        model: file.model.clone(),
        input: file.input.clone().ok_or_else(|| missing("input"))?,
        output: file.output.clone().ok_or_else(|| missing("output"))?,
        takes: file.takes.unwrap_or_default(),
        gives: file.gives.ok_or_else(|| missing("gives"))?,
        constants: file.constants.clone().unwrap_or_default(),
        states: file.states.clone().unwrap_or_default(),
    }])
}

impl Stage {
    /// The states that the file names; none if the model's own are meant.
    pub(crate) fn states(&self) -> Vec<StatePair> {
        let pair = |(i, o): (&String, &String)| StatePair { input: i.clone(), output: o.clone() };
        self.states.iter().map(pair).collect()
    }
}

/// The front end of models.
pub(crate) struct FrontEnd {
    pub(crate) spec: Spec,
    /// By stage.
    calls: Vec<Call>,
    analysis: Vec<f32>,
    synthesis: Vec<f32>,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
}

/// What a model is called with.
struct Call {
    /// The shape of the audio.
    shape: Vec<usize>,
    /// The inputs that are the same in every call.
    constants: Vec<(String, HostArray)>,
}

/// A frame on its way through the stages.
enum Frame {
    Samples(Vec<f32>),
    Spectrum(Vec<Complex<f32>>),
}

/// A recording on its way through the models.
pub(crate) struct Track {
    /// Samples of the recording.
    pub(crate) count: usize,
    /// The samples, and what stands before and behind them.
    x: Vec<f32>,
    /// Where the frame after this one begins.
    next: usize,
    frame: Frame,
    /// Probabilities, or samples that were added up where frames overlap.
    out: Vec<f32>,
}

impl FrontEnd {
    /// For these models, one a stage.
    pub(crate) fn new<'a>(spec: Spec, models: impl IntoIterator<Item = &'a OnnxModel>) -> Result<Self, Box<dyn Error>> {
        let mut calls = Vec::new();
        for (n, (stage, model)) in spec.stages.iter().zip(models).enumerate() {
            let about = |e: String| if spec.stages.len() > 1 { format!("stage {}: {e}", n + 1) } else { e };
            let context = if n == 0 { spec.context } else { 0 };
            calls.push(Call::new(stage, spec.frame, context, model).map_err(about)?);
        }
        let mut planner = RealFftPlanner::<f32>::new();
        let (forward, inverse) = (planner.plan_fft_forward(spec.frame), planner.plan_fft_inverse(spec.frame));
        let analysis = spec.window.samples(spec.frame);
        let synthesis = match spec.window {
            Window::SqrtHann => analysis.clone(),
            Window::Hann | Window::None => vec![1.0; spec.frame],
        };
        Ok(Self { spec, calls, analysis, synthesis, forward, inverse })
    }

    /// The shape of the audio that a stage takes.
    pub(crate) fn shape(&self, stage: usize) -> &[usize] {
        &self.calls[stage].shape
    }

    /// The inputs of a stage that are the same in every call.
    pub(crate) fn constants(&self, stage: usize) -> &[(String, HostArray)] {
        &self.calls[stage].constants
    }

    /// A recording before its first frame.
    pub(crate) fn begin(&self, x: &[f32]) -> Result<Track, Box<dyn Error>> {
        let Spec { frame, hop, context, ends, .. } = self.spec;
        let count = x.len();
        let x: Vec<f32> = if ends == Ends::Mirrored {
            let half = frame / 2;
            if count <= half {
                return Err(format!("is shorter than half a frame, {half} samples").into());
            }
            let at = |i: isize| {
                let last = count as isize - 1;
                let i = i.abs();
                x[(if i > last { 2 * last - i } else { i }) as usize]
            };
            (-(half as isize)..(count + half) as isize).map(at).collect()
        } else {
            // Zeros stand behind the recording where the last frame is not full.
            let late = frame - hop;
            let heard = if ends == Ends::Zeros { count + late } else { count };
            let mut all = vec![0.0; context + late];
            all.extend_from_slice(x);
            all.resize(context + late + heard.next_multiple_of(hop), 0.0);
            all
        };
        let out = if self.spec.gives_probability() { Vec::new() } else { vec![0.0; x.len() - context] };
        Ok(Track { count, x, next: 0, frame: Frame::Samples(Vec::new()), out })
    }

    /// Goes to the next frame; `false` at the end.
    pub(crate) fn next(&self, track: &mut Track) -> bool {
        let whole = self.spec.context + self.spec.frame;
        let Some(x) = track.x.get(track.next..track.next + whole) else { return false };
        let frame = &x[self.spec.context..];
        track.frame = Frame::Samples(frame.iter().zip(&self.analysis).map(|(x, w)| x * w).collect());
        track.next += self.spec.hop;
        true
    }

    /// What a stage takes of the frame.
    pub(crate) fn input(&self, stage: usize, track: &Track) -> Result<HostArray, Box<dyn Error>> {
        let numbers = match self.spec.stages[stage].takes {
            Takes::Samples => {
                let samples = self.samples(track)?;
                let at = self.here(track);
                let context = if stage == 0 { &track.x[at..at + self.spec.context] } else { &[] };
                [context, &samples[..]].concat()
            }
            Takes::Spectrum => self.spectrum(track)?.iter().flat_map(|c| [c.re, c.im]).collect(),
            Takes::Magnitude => self.spectrum(track)?.iter().map(|c| c.norm()).collect(),
        };
        Ok(HostArray { shape: self.calls[stage].shape.clone(), data: HostData::Float(numbers) })
    }

    /// Takes what a stage gave.
    pub(crate) fn take(&self, stage: usize, track: &mut Track, y: &[f32]) -> Result<(), Box<dyn Error>> {
        let Stage { gives, output, .. } = &self.spec.stages[stage];
        let bins = self.spec.frame / 2 + 1;
        let (what, count) = match gives {
            Gives::Probability => ("a probability", 1),
            Gives::Samples => ("a frame", self.spec.frame),
            Gives::Spectrum => ("a spectrum", 2 * bins),
            Gives::Mask => ("a mask", bins),
        };
        if y.len() != count {
            return Err(format!("the output `{output}` has {} numbers, but {what} has {count}", y.len()).into());
        }
        track.frame = match gives {
            Gives::Probability => {
                track.out.push(y[0]);
                return Ok(());
            }
            Gives::Samples => Frame::Samples(y.to_vec()),
            Gives::Spectrum => Frame::Spectrum(y.chunks_exact(2).map(|y| Complex::new(y[0], y[1])).collect()),
            Gives::Mask => Frame::Spectrum(self.spectrum(track)?.iter().zip(y).map(|(c, y)| c * y).collect()),
        };
        if stage + 1 == self.calls.len() {
            let samples = self.samples(track)?;
            let at = self.here(track);
            let out = track.out[at..].iter_mut();
            out.zip(&samples).zip(&self.synthesis).for_each(|((o, s), w)| *o += s * w);
        }
        Ok(())
    }

    /// What came of the recording: a probability a frame, or samples, as many as it had.
    pub(crate) fn finish(&self, track: Track) -> Vec<f32> {
        let mut out = track.out;
        if self.spec.gives_probability() {
            return out;
        }
        let early = match self.spec.ends {
            Ends::Live => 0,
            Ends::Zeros => self.spec.frame - self.spec.hop,
            Ends::Mirrored => self.spec.frame / 2,
        };
        out.drain(..early);
        out.resize(track.count, 0.0);
        out
    }

    /// Where the frame begins.
    fn here(&self, track: &Track) -> usize {
        track.next - self.spec.hop
    }

    fn samples(&self, track: &Track) -> Result<Vec<f32>, Box<dyn Error>> {
        let bins = match &track.frame {
            Frame::Samples(x) => return Ok(x.clone()),
            Frame::Spectrum(bins) => bins,
        };
        let (mut bins, mut time) = (bins.clone(), self.inverse.make_output_vec());
        // A real signal has none here.
        bins[0].im = 0.0;
        let n = self.spec.frame;
        if n.is_multiple_of(2) {
            bins[n / 2].im = 0.0;
        }
        self.inverse.process(&mut bins, &mut time)?;
        time.iter_mut().for_each(|t| *t /= n as f32);
        Ok(time)
    }

    fn spectrum(&self, track: &Track) -> Result<Vec<Complex<f32>>, Box<dyn Error>> {
        let samples = match &track.frame {
            Frame::Samples(x) => x,
            Frame::Spectrum(bins) => return Ok(bins.clone()),
        };
        let (mut time, mut bins) = (samples.clone(), self.forward.make_output_vec());
        self.forward.process(&mut time, &mut bins)?;
        Ok(bins)
    }
}

impl Call {
    fn new(stage: &Stage, frame: usize, context: usize, model: &OnnxModel) -> Result<Self, String> {
        let input = |name: &str| {
            let found = model.inputs().iter().find(|i| i.name == name);
            found.ok_or_else(|| format!("the model has no input `{name}`"))
        };
        let audio = input(&stage.input)?;
        if model.outputs().iter().all(|o| o.name != stage.output) {
            return Err(format!("the model has no output `{}`", stage.output));
        }
        let count = match stage.takes {
            Takes::Samples => context + frame,
            Takes::Spectrum => 2 * (frame / 2 + 1),
            Takes::Magnitude => frame / 2 + 1,
        };
        let shape = match Wanted::from(audio).dims {
            Some(dims) => fitted(&dims, count),
            None => Some(vec![1, count]),
        };
        let shape = shape
            .ok_or_else(|| format!("the input `{}` is {}, but a call has {count} numbers", audio.name, audio.kind))?;
        let constants = stage.constants.iter().map(|(name, v)| {
            let shape: Vec<usize> = input(name)?.kind.dims.iter().map(|d| d.size().unwrap_or(1)).collect();
            let data = HostData::Int(vec![*v; shape.iter().product()]);
            Ok::<_, String>((name.clone(), HostArray { shape, data }))
        });
        Ok(Self { shape, constants: constants.collect::<Result<_, _>>()? })
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
        assert_eq!(Window::None.samples(3), [1.0; 3]);
    }

    const GOOD: &str = "sample_rate = 16000\ninput = \"x\"\noutput = \"y\"\ngives = \"probability\"\nframe = 512\n";

    fn read(text: &str) -> Result<Spec, String> {
        Spec::of(toml::from_str(text).map_err(|e| e.to_string())?, Path::new("m.toml"))
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_by_name() {
        let wrong = |text: &str| read(text).map(|_| ()).expect_err("refused");
        assert!(read(GOOD).is_ok());
        let stage = "[[stage]]\nmodel = \"a.onnx\"\ninput = \"x\"\noutput = \"y\"\ngives = \"probability\"\n";
        let stages = |text: &str| format!("sample_rate = 8000\nframe = 8\n{text}");
        assert!(read(&stages(stage)).is_ok());
        for (text, word) in [
            (format!("{GOOD}colour = 3\n"), "colour"),
            (format!("{GOOD}threshold = 2.0\n"), "threshold"),
            (format!("{GOOD}hop = 513\n"), "hop"),
            (format!("{GOOD}context = 64\nhop = 256\n"), "context"),
            (format!("{GOOD}context = 64\ntakes = \"magnitude\"\n"), "context"),
            (GOOD.replace("512", "0"), "frame"),
            (GOOD.replace("512", "1").replace("probability", "mask"), "frame"),
            (GOOD.replace("input = \"x\"", ""), "`input`"),
            (format!("{GOOD}{stage}"), "`input` belongs"),
            (stages(&format!("{stage}{stage}")), "stage 1"),
            (stages(&stage.replace("a.onnx", "../a.onnx")), "../a.onnx"),
            (stages(&stage.replace("a.onnx", "/a.onnx")), "/a.onnx"),
            (stages(&stage.replace("a.onnx", "")), "`model`"),
            (stages(&stage.repeat(17)), "17 stages"),
        ] {
            let e = wrong(&text);
            assert!(e.contains(word), "{text}: {e}");
        }
        let e = Spec::read(Path::new("/nowhere/m.toml")).map(|_| ()).expect_err("refused").to_string();
        assert!(e.contains("m.toml") && e.contains("docs/audio.md"), "{e}");
    }

    #[test]
    fn models_are_named_in_one_place() {
        let (own, other) = (Path::new("m.toml"), Path::new("a/m.onnx"));
        let one = read(GOOD).expect("a description");
        assert_eq!(one.models(other), Ok(vec![other.to_path_buf()]));
        assert!(one.models(own).expect_err("refused").contains("names no `model`"));
        let named = read(&format!("{GOOD}model = \"b.onnx\"\n")).expect("a description");
        assert_eq!(named.models(own), Ok(vec![PathBuf::from("b.onnx")]));
        assert!(named.models(other).expect_err("refused").contains("names its models itself"));
    }

    /// Frames that no model changes are the recording again, moved as `ends` says, whatever is in between.
    #[test]
    fn frames_add_up_to_the_recording() {
        let x: Vec<f32> = (0..1003).map(|n| (n * 37 % 101) as f32 * 0.01 - 0.5).collect();
        for (ends, window, hop, takes, gives) in [
            ("live", "none", 64, "samples", "samples"),
            ("live", "sqrt_hann", 32, "spectrum", "spectrum"),
            ("zeros", "none", 16, "magnitude", "mask"),
            ("zeros", "sqrt_hann", 32, "samples", "mask"),
            ("mirrored", "hann", 32, "spectrum", "spectrum"),
        ] {
            let text = GOOD.replace("512", "64").replace("probability", gives);
            let spec =
                read(&format!("{text}hop = {hop}\nends = \"{ends}\"\nwindow = \"{window}\"\ntakes = \"{takes}\"\n"));
            let mut front = FrontEnd::new(spec.expect("a description"), []).expect("a front end");
            front.calls.push(Call { shape: vec![], constants: vec![] });
            let mut track = front.begin(&x).expect("a track");
            while front.next(&mut track) {
                let HostData::Float(mut y) = front.input(0, &track).expect("an input").data else { panic!("floats") };
                if gives == "mask" {
                    y = vec![1.0; 33];
                }
                front.take(0, &mut track, &y).expect("a frame");
                assert!(front.take(0, &mut track, &y[1..]).is_err());
            }
            let got = front.finish(track);
            // Without a window each sample is added as often as frames overlap.
            let times = if window == "none" { 64 / hop } else { 1 } as f32;
            let late = if ends == "live" { 64 - hop } else { 0 };
            assert_eq!(got.len(), x.len());
            // A mirrored recording ends with its last whole frame.
            let end = if ends == "mirrored" { 1003 / hop * hop - 32 } else { x.len() };
            for n in late..end {
                assert!((got[n] / times - x[n - late]).abs() < 1e-5, "{ends} {n}: {} {}", got[n], x[n - late]);
            }
            assert!(got[..late].iter().all(|y| y.abs() < 1e-6));
        }
    }
}
