//! ONNX files that are damaged, or ask for what is not there.

use recurve::{Device, Error, OnnxModel};
use recurve_tests::Random;

const GTCRN: &[u8] = include_bytes!("../../models/gtcrn.onnx");
const SILERO: &[u8] = include_bytes!("../../models/silero_vad.onnx");

/// Opened or refused by a typed error; nothing else.
fn open(bytes: &[u8]) -> bool {
    match OnnxModel::from_bytes(bytes.to_vec(), &Device::Cpu) {
        Ok(_) => true,
        Err(Error::Onnx { problems, .. }) => {
            assert!(!problems.is_empty());
            false
        }
        Err(Error::Description { .. } | Error::Run(_)) => false,
        Err(e) => panic!("{e}"),
    }
}

/// Changed and cut files: a typed error or a model, never a panic.
#[test]
fn changed_files_are_refused_or_opened() {
    let mut r = Random(11);
    let (mut opened, runs) = (0, 3000);
    for run in 0..runs {
        let file = if run % 2 == 0 { GTCRN } else { SILERO };
        let mut bytes = file.to_vec();
        match run % 3 {
            0 => bytes.truncate(r.below(file.len())),
            // Within the nodes, which stand in front of the weights.
            _ => (0..=r.below(4)).for_each(|_| bytes[r.below(60_000)] = r.below(256) as u8),
        }
        opened += usize::from(open(&bytes));
    }
    println!("{opened} of {runs} opened");
    assert!(opened > 100 && opened < runs - 100, "{opened} of {runs} opened");
    assert!(open(GTCRN) && open(SILERO));
    for bytes in [&b""[..], b"\x00", b"not an ONNX file at all", &[0xff; 64]] {
        assert!(!open(bytes));
    }
}
