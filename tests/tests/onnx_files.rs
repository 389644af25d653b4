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

/// A model of one GRU by a program, with or without the attribute that PyTorch's exporter forgets. The messages by
/// hand: field number and bytes.
fn gru(producer: &str, linear_before_reset: bool) -> Vec<u8> {
    let field = |tag: u8, data: &[u8]| [&[tag << 3 | 2, data.len() as u8], data].concat();
    let number = |tag: u8, n: u8| vec![tag << 3, n];
    let dims = |sizes: &[u8]| field(2, &sizes.iter().flat_map(|n| field(1, &number(1, *n))).collect::<Vec<u8>>());
    let value = |name: &str, sizes: &[u8]| {
        let tensor = field(1, &[number(1, 1), dims(sizes)].concat());
        [field(1, name.as_bytes()), field(2, &tensor)].concat()
    };
    let integer = |name: &str, n: u8| {
        // The type of an attribute has field 20.
        field(5, &[field(1, name.as_bytes()), number(3, n), vec![0xa0, 0x01, 2]].concat())
    };
    let mut node = [field(1, b"x"), field(1, b"w"), field(1, b"r"), field(2, b"y"), field(4, b"GRU")].concat();
    node.extend(integer("hidden_size", 2));
    if linear_before_reset {
        node.extend(integer("linear_before_reset", 1));
    }
    let inputs = [value("x", &[3, 1, 2]), value("w", &[1, 6, 2]), value("r", &[1, 6, 2])];
    let inputs: Vec<u8> = inputs.iter().flat_map(|v| field(11, v)).collect();
    let graph = [field(1, &node), inputs, field(12, &value("y", &[3, 1, 1, 2]))].concat();
    // A length of two bytes.
    let graph = [&[7 << 3 | 2, graph.len() as u8 | 0x80, (graph.len() >> 7) as u8], &graph[..]].concat();
    [field(2, producer.as_bytes()), graph, field(8, &number(2, 14))].concat()
}

/// The exporter's fault is named, and only where it may be one.
#[test]
fn a_gru_of_pytorch_without_its_attribute_is_pointed_out() {
    let notes = |bytes: Vec<u8>| OnnxModel::from_bytes(bytes, &Device::Cpu).unwrap().notes().join(" ");
    let note = notes(gru("pytorch", false));
    assert!(note.contains("linear_before_reset") && note.contains("`y` (GRU)"), "{note}");
    assert_eq!(notes(gru("pytorch", true)), "");
    assert_eq!(notes(gru("tf2onnx", false)), "");
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
