//! Reading and writing `.wav` files.

use crate::arguments::write_output;
use recurve::{HostArray, HostData};
use std::error::Error;
use std::io::{BufReader, Cursor};
use std::path::Path;

/// Samples of a file, at most.
const MAX_SAMPLES: u64 = 1 << 31;

/// The samples of a file.
pub(crate) struct Sound {
    /// Samples a second of each channel.
    pub(crate) rate: u32,
    channels: usize,
    /// Channel by channel in each moment.
    samples: Vec<f32>,
}

impl Sound {
    /// The mean of the channels.
    pub(crate) fn mono(self) -> Vec<f32> {
        if self.channels == 1 {
            return self.samples;
        }
        self.samples.chunks_exact(self.channels).map(|c| c.iter().sum::<f32>() / self.channels as f32).collect()
    }

    /// `[samples]`, or of several channels `[channels, samples]`.
    pub(crate) fn array(self) -> HostArray {
        let count = self.samples.len() / self.channels;
        if self.channels == 1 {
            return HostArray { shape: vec![count], data: HostData::Float(self.samples) };
        }
        let channel = |c: usize| self.samples.chunks_exact(self.channels).map(move |s| s[c]);
        let data = (0..self.channels).flat_map(channel).collect();
        HostArray { shape: vec![self.channels, count], data: HostData::Float(data) }
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Sound, Box<dyn Error>> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    // A pipe or a device may never end.
    if !std::fs::metadata(path).map_err(|e| at(&e))?.is_file() {
        return Err(at(&"is no file").into());
    }
    let file = std::fs::File::open(path).map_err(|e| at(&e))?;
    let mut reader = hound::WavReader::new(BufReader::new(file)).map_err(|e| at(&e))?;
    let spec = reader.spec();
    let channels = usize::from(spec.channels);
    if channels == 0 || u64::from(reader.len()) > MAX_SAMPLES {
        return Err(at(&"has no channels, or more samples than are read").into());
    }
    let mut samples: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>().map_err(|e| at(&e))?,
        hound::SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
            let wide = reader.samples::<i32>().map(|s| s.map(|s| s as f32 * scale));
            wide.collect::<Result<_, _>>().map_err(|e| at(&e))?
        }
    };
    samples.truncate(samples.len() / channels * channels);
    if samples.is_empty() {
        return Err(at(&"has no samples").into());
    }
    Ok(Sound { rate: spec.sample_rate, channels, samples })
}

/// Writes one channel with 16 bits a sample.
pub(crate) fn write(path: &Path, rate: u32, samples: &[f32]) -> Result<(), Box<dyn Error>> {
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
