//! Recordings through models, frame by frame: `recurve run MODEL --wav IN.wav`.

use crate::arguments::check_output;
use crate::front_end::{FrontEnd, Spec, Track};
use crate::run::Arguments;
use crate::terminal::{complain, print_json, progress, say};
use crate::{BAD_INPUT, Outcome, sound};
use indicatif::ProgressBar;
use recurve::{Device, HostArray, OnnxModel, OnnxSession, OnnxStreams, StreamId};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

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

/// What came of a recording.
struct Heard {
    seconds: f64,
    /// Where there is speech, in seconds.
    speech: Option<Vec<(f64, f64)>>,
    output: Option<PathBuf>,
}

/// Recordings that go through models.
struct Recordings<'a> {
    front: &'a FrontEnd,
    files: &'a [PathBuf],
    outputs: &'a [Option<PathBuf>],
    bar: &'a ProgressBar,
}

/// What a model gives, by name.
type Outputs = Vec<(String, HostArray)>;

/// A recording among others.
struct Active {
    /// Its stream in each model.
    ids: Vec<StreamId>,
    /// Which file it is.
    n: usize,
    track: Track,
}

/// Recordings that share a call, at most.
const TOGETHER: usize = 16;

impl Recordings<'_> {
    fn open(&self, n: usize) -> Result<Track, Box<dyn Error>> {
        let (path, rate) = (&self.files[n], self.front.spec.sample_rate);
        let sound = sound::read(path)?;
        if sound.rate != rate {
            let (path, has) = (path.display(), sound.rate);
            let message = format!("{path}: has {has} samples a second, but the model takes {rate}; convert it first");
            return Err(message.into());
        }
        self.front.begin(&sound.mono()).map_err(|e| self.about(n, &*e))
    }

    /// An error that names the recording.
    fn about(&self, n: usize, e: &dyn Error) -> Box<dyn Error> {
        format!("{}: {e}", self.files[n].display()).into()
    }

    fn close(&self, n: usize, track: Track) -> Result<Heard, Box<dyn Error>> {
        let spec = &self.front.spec;
        let seconds = track.count as f64 / f64::from(spec.sample_rate);
        let y = self.front.finish(track);
        let output = self.outputs[n].clone();
        if let Some(path) = &output {
            sound::write(path, spec.sample_rate, &y)?;
        }
        let speech = spec.gives_probability().then(|| segments(&y, spec.seconds(), spec.threshold));
        Ok(Heard { seconds, speech, output })
    }

    /// Takes what a stage gave.
    fn take(&self, stage: usize, track: &mut Track, outputs: Outputs) -> Result<(), Box<dyn Error>> {
        let name = &self.front.spec.stages[stage].output;
        let y = outputs.into_iter().find(|(n, _)| n == name);
        let y = y.ok_or_else(|| format!("`{name}` is a state, so it does not come out"))?.1;
        self.front.take(stage, track, &y.to_f32())
    }

    /// One recording by itself.
    fn alone(&self, sessions: &mut [OnnxSession], n: usize, mut each: impl FnMut()) -> Result<Heard, Box<dyn Error>> {
        let mut track = self.open(n)?;
        sessions.iter_mut().try_for_each(OnnxSession::reset)?;
        let mut through = || -> Result<(), Box<dyn Error>> {
            while self.front.next(&mut track) {
                for (stage, session) in sessions.iter_mut().enumerate() {
                    let x = self.front.input(stage, &track)?;
                    let constants = self.front.constants(stage).iter().map(|(n, a)| (n.as_str(), a));
                    let name = self.front.spec.stages[stage].input.as_str();
                    let outputs = session.run(constants.chain([(name, &x)]))?;
                    self.take(stage, &mut track, outputs)?;
                }
                each();
            }
            Ok(())
        };
        through().map_err(|e| self.about(n, &*e))?;
        self.close(n, track)
    }

    /// All recordings, several in a call; `done` is told what came of each.
    fn together(&self, mut streams: Vec<OnnxStreams>, mut done: impl FnMut(usize, Result<Heard, Box<dyn Error>>)) {
        let mut waiting = 0..self.files.len();
        let mut active: Vec<Active> = Vec::new();
        let leave = |streams: &mut Vec<OnnxStreams>, ids: &[StreamId]| {
            for (streams, id) in streams.iter_mut().zip(ids) {
                streams.leave(*id).expect("it joined below");
            }
        };
        loop {
            while active.len() < TOGETHER
                && let Some(n) = waiting.next()
            {
                match self.open(n) {
                    Ok(track) => {
                        active.push(Active { ids: streams.iter_mut().map(OnnxStreams::join).collect(), n, track });
                    }
                    Err(e) => done(n, Err(e)),
                }
            }
            let mut going = Vec::new();
            for mut a in active {
                if self.front.next(&mut a.track) {
                    going.push(a);
                } else {
                    leave(&mut streams, &a.ids);
                    done(a.n, self.close(a.n, a.track));
                }
            }
            for stage in 0..streams.len() {
                let results = self.step(&mut streams[stage], stage, &mut going);
                let mut on = Vec::new();
                for (a, result) in going.into_iter().zip(results) {
                    match result {
                        Ok(()) => on.push(a),
                        Err(e) => {
                            leave(&mut streams, &a.ids);
                            done(a.n, Err(self.about(a.n, &*e)));
                        }
                    }
                }
                going = on;
            }
            active = going;
            if active.is_empty() && waiting.is_empty() {
                return;
            }
        }
    }

    /// One stage of all recordings in one call, and what came of it for each.
    fn step(&self, streams: &mut OnnxStreams, stage: usize, all: &mut [Active]) -> Vec<Result<(), Box<dyn Error>>> {
        if all.is_empty() {
            return Vec::new();
        }
        let name = self.front.spec.stages[stage].input.as_str();
        let call = |all: &[Active], streams: &mut OnnxStreams| -> Result<Vec<Outputs>, Box<dyn Error>> {
            let inputs = all.iter().map(|a| Ok((a.ids[stage], self.front.input(stage, &a.track)?)));
            let inputs = inputs.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
            let named: Vec<_> = inputs.iter().map(|(id, x)| (*id, [(name, x)])).collect();
            let frames: Vec<_> = named.iter().map(|(id, x)| (*id, &x[..])).collect();
            let shared: Vec<_> = self.front.constants(stage).iter().map(|(n, a)| (n.as_str(), a)).collect();
            Ok(streams.step(&frames, &shared)?)
        };
        match call(all, streams) {
            Ok(outputs) => {
                all.iter_mut().zip(outputs).map(|(a, outputs)| self.take(stage, &mut a.track, outputs)).collect()
            }
            // The call was that of all of them.
            Err(e) => all.iter().map(|_| Err(e.to_string().into())).collect(),
        }
    }
}

/// The recordings that are meant: files, and those of folders by their names.
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut all = Vec::new();
    for path in given {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let at = |e: std::io::Error| format!("{}: {e}", path.display());
        let mut here = Vec::new();
        for entry in std::fs::read_dir(path).map_err(at)? {
            let file = entry.map_err(at)?.path();
            if file.extension().is_some_and(|e| e.eq_ignore_ascii_case("wav")) && !file.is_dir() {
                here.push(file);
            }
        }
        if here.is_empty() {
            return Err(format!("{}: has no .wav file in it", path.display()).into());
        }
        here.sort();
        all.extend(here);
    }
    Ok(all)
}

/// Where what comes of each recording is written: a file by its name in a folder.
fn places(files: &[PathBuf], folder: &Path) -> Result<Vec<Option<PathBuf>>, Box<dyn Error>> {
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut seen = HashSet::new();
    let place = |file: &PathBuf| {
        let name = file.file_name().ok_or_else(|| format!("{}: names no file", file.display()))?;
        if !seen.insert(name.to_owned()) {
            return Err(format!("{}: another recording has the same name", file.display()));
        }
        let to = folder.join(name);
        if let (Ok(a), Ok(b)) = (to.canonicalize(), file.canonicalize())
            && a == b
        {
            return Err(format!("{}: `-o` would replace the recording itself", file.display()));
        }
        Ok(Some(to))
    };
    Ok(files.iter().map(place).collect::<Result<_, _>>()?)
}

/// Runs models over recordings.
pub(crate) fn run(a: &Arguments) -> Outcome {
    let whole = Spec::is_one(&a.model);
    if whole && a.audio.is_some() {
        return Err("`--audio` goes with an ONNX file, not with a file that names its models".into());
    }
    let beside = || a.model.with_extension("toml");
    let path = if whole { a.model.clone() } else { a.audio.clone().unwrap_or_else(beside) };
    let spec = Spec::read(&path)?;
    if a.wav_output.is_some() && spec.gives_probability() {
        return Err("`-o` is for models that give audio; this one gives probabilities".into());
    }
    let paths = spec.models(&a.model)?;
    if paths.len() > 1 && !a.states.is_empty() {
        return Err(format!("`--state` is for one model; {} has the states of each", path.display()).into());
    }
    let files = files(&a.wav)?;
    let many = files.len() > 1 || a.wav.iter().any(|p| p.is_dir());
    let outputs = match &a.wav_output {
        None => vec![None; files.len()],
        Some(path) if many || path.is_dir() => places(&files, path)?,
        Some(path) => vec![Some(path.clone())],
    };
    outputs.iter().flatten().try_for_each(|p| check_output(p))?;
    let device = Device::open(&a.device)?;
    let open = |path: &PathBuf| OnnxModel::open(path, &device).map(Arc::new);
    let models = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let front = FrontEnd::new(spec, models.iter().map(|m| &**m))?;
    let states = front.spec.stages.iter().zip(&models).map(|(stage, model)| {
        let stated = if a.states.is_empty() { stage.states() } else { a.states.clone() };
        if stated.is_empty() { model.states() } else { stated }
    });
    let models: Vec<_> = models.iter().cloned().zip(states).collect();
    let sessions = || -> Result<Vec<OnnxSession>, Box<dyn Error>> {
        let session = |(m, states): &(Arc<OnnxModel>, Vec<_>)| OnnxSession::with_states(m.clone(), states, 1);
        Ok(models.iter().map(session).collect::<Result<_, _>>()?)
    };
    let started = Instant::now();
    if !many {
        let mut sessions = sessions()?;
        let frames = |bytes: u64| (bytes / 2).div_ceil(front.spec.hop() as u64) as usize;
        let bar = progress(std::fs::metadata(&files[0]).map_or(0, |m| frames(m.len())));
        let all = Recordings { front: &front, files: &files, outputs: &outputs, bar: &bar };
        let heard = all.alone(&mut sessions, 0, || all.bar.inc(1));
        bar.finish_and_clear();
        return one(a, &device, &sessions, &files[0], &heard?, started.elapsed().as_secs_f64());
    }
    let bar = progress(files.len());
    let all = Recordings { front: &front, files: &files, outputs: &outputs, bar: &bar };
    let mut heard: Vec<Option<Heard>> = files.iter().map(|_| None).collect();
    let mut failed: Vec<Option<String>> = vec![None; files.len()];
    let mut done = |n: usize, result: Result<Heard, Box<dyn Error>>| {
        match result {
            Ok(h) => heard[n] = Some(h),
            Err(e) => {
                bar.suspend(|| complain(format_args!("error: {e}")));
                failed[n] = Some(e.to_string());
            }
        }
        bar.inc(1);
    };
    // Where a file fixes the batch, one after the other.
    let streams = |(m, states): &(Arc<OnnxModel>, Vec<_>)| OnnxStreams::with_states(m.clone(), states).ok();
    let streams: Option<Vec<_>> = models.iter().map(streams).collect();
    let batched = streams.is_some();
    match streams {
        Some(streams) => all.together(streams, &mut done),
        None => {
            let mut sessions = sessions()?;
            (0..files.len()).for_each(|n| done(n, all.alone(&mut sessions, n, || {})));
        }
    }
    bar.finish_and_clear();
    let took = started.elapsed().as_secs_f64();
    let seconds: f64 = heard.iter().flatten().map(|h| h.seconds).sum();
    let code = if failed.iter().any(Option::is_some) { ExitCode::from(BAD_INPUT) } else { ExitCode::SUCCESS };
    if a.json {
        let file = |n: usize| {
            let h = heard[n].as_ref();
            json!({
                "wav": files[n].display().to_string(), "seconds": h.map(|h| h.seconds), "speech": h.map(speech_json),
                "output": h.and_then(output_json), "error": failed[n],
            })
        };
        print_json(&json!({
            "model": a.model.display().to_string(), "device": device.to_string(), "batched": batched,
            "files": (0..files.len()).map(file).collect::<Vec<_>>(), "seconds": seconds, "ms": took * 1e3,
        }))?;
        return Ok(code);
    }
    say(format_args!("device: {device}"))?;
    say(format_args!("model:  {}", a.model.display()))?;
    for (file, h) in files.iter().zip(&heard) {
        if let Some(h) = h {
            say(format_args!("{}: {:.2} s", file.display(), h.seconds))?;
            say_heard(h, "  ")?;
        }
    }
    let count = heard.iter().flatten().count();
    let how = if batched { ", several in a call" } else { "" };
    say(format_args!(
        "{count} of {} files{how}: {seconds:.2} s of audio in {took:.3} s, {:.0} times real time",
        files.len(),
        seconds / took.max(1e-9)
    ))?;
    Ok(code)
}

fn speech_json(h: &Heard) -> Value {
    h.speech.as_ref().map_or(Value::Null, |s| s.iter().map(|(a, b)| json!([a, b])).collect())
}

fn output_json(h: &Heard) -> Option<String> {
    h.output.as_ref().map(|p| p.display().to_string())
}

fn say_heard(h: &Heard, before: &str) -> Result<(), Box<dyn Error>> {
    if let Some(speech) = &h.speech {
        speech.iter().try_for_each(|(a, b)| say(format_args!("{before}speech  {a:8.3} s to {b:8.3} s")))?;
        if speech.is_empty() {
            say(format_args!("{before}no speech"))?;
        }
    }
    match &h.output {
        Some(output) => say(format_args!("{before}wrote   {}", output.display())),
        None => Ok(()),
    }
}

/// Prints what came of one recording.
fn one(a: &Arguments, device: &Device, sessions: &[OnnxSession], wav: &Path, h: &Heard, took: f64) -> Outcome {
    if a.json {
        print_json(&json!({
            "model": a.model.display().to_string(), "device": device.to_string(), "wav": wav.display().to_string(),
            "seconds": h.seconds, "speech": speech_json(h), "output": output_json(h), "ms": took * 1e3,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("device: {device}"))?;
    say(format_args!("model:  {}", a.model.display()))?;
    for s in sessions.iter().flat_map(OnnxSession::states) {
        say(format_args!("state:  {} <- {}", s.input, s.output))?;
    }
    say_heard(h, "")?;
    let times = h.seconds / took.max(1e-9);
    say(format_args!("{:.2} s of audio in {took:.3} s, {times:.0} times real time", h.seconds))?;
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
}
