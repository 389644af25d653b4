//! Recordings through a model, frame by frame: `recurve run MODEL --wav IN.wav`.

use crate::arguments::check_output;
use crate::front_end::{FrontEnd, Gives, Spec, Track};
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

/// Recordings that go through a model.
struct Recordings<'a> {
    front: &'a FrontEnd,
    files: &'a [PathBuf],
    outputs: &'a [Option<PathBuf>],
    bar: &'a ProgressBar,
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
        self.front.begin(sound.mono()).map_err(|e| self.about(n, &*e))
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
        let speech = (spec.gives == Gives::Probability).then(|| segments(&y, self.front.seconds(), spec.threshold));
        Ok(Heard { seconds, speech, output })
    }

    /// The numbers of the output that is wanted.
    fn wanted(&self, outputs: Vec<(String, HostArray)>) -> Result<Vec<f32>, Box<dyn Error>> {
        let name = &self.front.spec.output;
        let y = outputs.into_iter().find(|(n, _)| n == name);
        Ok(y.ok_or_else(|| format!("`{name}` is a state, so it does not come out"))?.1.to_f32())
    }

    /// One recording by itself.
    fn alone(&self, session: &mut OnnxSession, n: usize, mut each: impl FnMut()) -> Result<Heard, Box<dyn Error>> {
        let mut track = self.open(n)?;
        session.reset()?;
        let mut through = || -> Result<(), Box<dyn Error>> {
            while let Some(x) = self.front.next(&mut track)? {
                let constants = self.front.constants.iter().map(|(n, a)| (n.as_str(), a));
                let outputs = session.run(constants.chain([(self.front.spec.input.as_str(), &x)]))?;
                self.front.take(&mut track, &self.wanted(outputs)?)?;
                each();
            }
            Ok(())
        };
        through().map_err(|e| self.about(n, &*e))?;
        self.close(n, track)
    }

    /// All recordings, several in a call; `done` is told what came of each.
    fn together(&self, mut streams: OnnxStreams, mut done: impl FnMut(usize, Result<Heard, Box<dyn Error>>)) {
        let mut waiting = 0..self.files.len();
        let mut active: Vec<(StreamId, usize, Track)> = Vec::new();
        loop {
            while active.len() < TOGETHER
                && let Some(n) = waiting.next()
            {
                match self.open(n) {
                    Ok(track) => active.push((streams.join(), n, track)),
                    Err(e) => done(n, Err(e)),
                }
            }
            let mut calls = Vec::new();
            let mut going = Vec::new();
            for (id, n, mut track) in active {
                match self.front.next(&mut track) {
                    Ok(Some(x)) => {
                        calls.push((id, x));
                        going.push((id, n, track));
                        continue;
                    }
                    Ok(None) => done(n, self.close(n, track)),
                    Err(e) => done(n, Err(self.about(n, &*e))),
                }
                streams.leave(id).expect("it joined above");
            }
            active = going;
            if active.is_empty() {
                if waiting.is_empty() {
                    return;
                }
                continue;
            }
            let name = self.front.spec.input.as_str();
            let inputs: Vec<_> = calls.iter().map(|(id, x)| (*id, [(name, x)])).collect();
            let frames: Vec<_> = inputs.iter().map(|(id, x)| (*id, &x[..])).collect();
            let shared: Vec<_> = self.front.constants.iter().map(|(n, a)| (n.as_str(), a)).collect();
            match streams.step(&frames, &shared) {
                Ok(all) => {
                    let mut going = Vec::new();
                    for ((id, n, mut track), outputs) in active.into_iter().zip(all) {
                        match self.wanted(outputs).and_then(|y| self.front.take(&mut track, &y)) {
                            Ok(()) => going.push((id, n, track)),
                            Err(e) => {
                                done(n, Err(self.about(n, &*e)));
                                streams.leave(id).expect("it joined above");
                            }
                        }
                    }
                    active = going;
                }
                // The call was that of all of them.
                Err(e) => {
                    for (id, n, _) in active.drain(..) {
                        done(n, Err(self.about(n, &e)));
                        streams.leave(id).expect("it joined above");
                    }
                }
            }
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

/// Runs a model over recordings.
pub(crate) fn run(a: &Arguments) -> Outcome {
    let spec = Spec::read(&a.model, a.audio.as_deref())?;
    if a.wav_output.is_some() && spec.gives == Gives::Probability {
        return Err("`-o` is for models that give audio; this one gives probabilities".into());
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
    let model = Arc::new(OnnxModel::open(&a.model, &device)?);
    let front = FrontEnd::new(spec, &model)?;
    let stated = if a.states.is_empty() { front.states() } else { a.states.clone() };
    let states = if stated.is_empty() { model.states() } else { stated };
    let started = Instant::now();
    if !many {
        let mut session = OnnxSession::with_states(model, &states, 1)?;
        let frames = |bytes: u64| (bytes / 2).div_ceil(front.hop() as u64) as usize;
        let bar = progress(std::fs::metadata(&files[0]).map_or(0, |m| frames(m.len())));
        let all = Recordings { front: &front, files: &files, outputs: &outputs, bar: &bar };
        let heard = all.alone(&mut session, 0, || all.bar.inc(1));
        bar.finish_and_clear();
        return one(a, &device, &session, &files[0], &heard?, started.elapsed().as_secs_f64());
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
    // Where the file fixes the batch, one after the other.
    let streams = OnnxStreams::with_states(model.clone(), &states).ok();
    let batched = streams.is_some();
    match streams {
        Some(streams) => all.together(streams, &mut done),
        None => {
            let mut session = OnnxSession::with_states(model, &states, 1)?;
            (0..files.len()).for_each(|n| done(n, all.alone(&mut session, n, || {})));
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
fn one(a: &Arguments, device: &Device, session: &OnnxSession, wav: &Path, h: &Heard, took: f64) -> Outcome {
    if a.json {
        print_json(&json!({
            "model": a.model.display().to_string(), "device": device.to_string(), "wav": wav.display().to_string(),
            "seconds": h.seconds, "speech": speech_json(h), "output": output_json(h), "ms": took * 1e3,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("device: {device}"))?;
    say(format_args!("model:  {}", a.model.display()))?;
    for s in session.states() {
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
