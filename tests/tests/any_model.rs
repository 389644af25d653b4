//! Models of either kind behind one type, and their sessions. Their numbers are those of the types behind it, which
//! other tests hold to other frameworks.

use recurve::testing::{Tolerance, compare};
use recurve::{AnyModel, AnySession, Device, Error, HostArray, HostData, OnnxModel, StatePair, Tensor};
use recurve_graph::{Data, Element, Int, IntArray};
use recurve_tests::devices;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).unwrap()
}

fn whole(dims: &[usize], data: impl IntoIterator<Item = i64>) -> Data {
    IntArray::new(dims, data.into_iter().collect::<Vec<_>>()).into()
}

/// The only output, as floats.
fn only(outputs: Vec<(String, Element, Data)>) -> Vec<f32> {
    let [(_, Element::F32, Data::Tensor(t))] = &outputs[..] else { panic!("{outputs:?}") };
    t.to_vec().unwrap()
}

#[test]
fn bytes_tell_what_they_are() {
    let kind = |bytes: Vec<u8>| AnyModel::from_bytes(bytes, &Device::Cpu);
    assert!(matches!(kind(bytes("silero_vad.onnx")), Ok(AnyModel::Onnx(_))));
    assert!(matches!(kind(bytes("stars.safetensors")), Ok(AnyModel::Network(_))));
    let keras = include_bytes!("../fixtures/mixed_before.keras");
    assert!(matches!(kind(keras.to_vec()), Ok(AnyModel::Network(_))));
    for name in ["silero_vad.onnx", "stars.safetensors"] {
        let opened = AnyModel::open(file(name), &Device::Cpu).unwrap();
        assert_eq!(matches!(opened, AnyModel::Onnx(_)), name.ends_with("onnx"));
    }
    // Damaged ones are refused as what they are, and what is nothing known as no ONNX file.
    let cut = |name: &str, keep: usize| kind(bytes(name)[..keep].to_vec()).unwrap_err().to_string();
    assert!(cut("silero_vad.onnx", 100_000).contains("is no ONNX file"), "{}", cut("silero_vad.onnx", 100_000));
    assert!(!cut("stars.safetensors", 1000).contains("ONNX"), "{}", cut("stars.safetensors", 1000));
    for nothing in [&b""[..], b"<!doctype html>", b"PK\x03\x04", &[0; 9]] {
        assert!(kind(nothing.to_vec()).is_err(), "{nothing:?}");
    }
}

#[test]
fn inputs_have_their_types_and_others_are_refused() {
    let silero = AnyModel::open(file("silero_vad.onnx"), &Device::Cpu).unwrap();
    assert_eq!(silero.input_element("input").unwrap(), Element::F32);
    assert_eq!(silero.input_element("sr").unwrap(), Element::Int(Int::I64));
    let stars = AnyModel::open(file("stars.safetensors"), &Device::Cpu).unwrap();
    for name in ["tokens", "lengths", "mask"] {
        assert_eq!(stars.input_element(name).unwrap(), Element::U32);
    }
    for (model, has) in [(&silero, "it has `input`, `state`, `sr`"), (&stars, "`tokens` and, optionally, `lengths`")] {
        // Asking and running say the same.
        let asked = model.input_element("x").unwrap_err().to_string();
        let run = model.run([("x", whole(&[1], [0]))]).unwrap_err().to_string();
        assert!(asked.contains(has), "{asked}");
        assert_eq!(asked, run);
    }
    assert_eq!(stars.outputs()[0].1.dtype, Element::F32);
    assert!(silero.summary("silero").contains("state   state <- stateN"), "{}", silero.summary("silero"));
}

#[test]
fn a_session_of_a_network_goes_on_where_a_call_ended() {
    for device in devices() {
        let stars = AnyModel::open(file("stars.safetensors"), &device).unwrap();
        let ids: Vec<i64> = (0..6).map(|n| n * 7 % 26).collect();
        let all = only(stars.run([("tokens", whole(&[1, 6], ids.iter().copied()))]).unwrap());
        let mut session = AnySession::new(&stars, 1, None).unwrap();
        assert!(session.states().is_empty());
        let part = |ids: &[i64], s: &mut AnySession| {
            only(s.run([("tokens", whole(&[1, ids.len()], ids.iter().copied()))]).unwrap())
        };
        let parts = [part(&ids[..2], &mut session), part(&ids[2..], &mut session)].concat();
        let want: Vec<f64> = all.iter().map(|v| f64::from(*v)).collect();
        compare(&parts, &want, Tolerance { abs: 1e-5, rel: 0.0 }).unwrap();
        // Without the state it would be noticed.
        session.reset().unwrap();
        let forgot = [part(&ids[..2], &mut session), {
            session.reset().unwrap();
            part(&ids[2..], &mut session)
        }];
        assert!(compare(&forgot.concat(), &want, Tolerance { abs: 1e-5, rel: 0.0 }).is_err());
        assert_eq!(session.states()[0], "0.h");
        let state = session.state("0.h").unwrap();
        assert_eq!(state.shape[..2], [1, 1]);
        // A call that fails leaves the states.
        assert!(session.run([("tokens", whole(&[1, 1], [26_000]))]).is_err());
        assert_eq!(session.state("0.h").unwrap(), state);
        assert!(session.state("h").unwrap_err().to_string().contains("its states are `0.h`"));
        assert!(matches!(session.set_state("0.h", &state), Err(Error::Input { .. })));
    }
}

#[test]
fn a_session_of_an_onnx_graph_is_an_onnx_session() {
    let silero = AnyModel::open(file("silero_vad.onnx"), &Device::Cpu).unwrap();
    let x: Vec<f32> = (0..576).map(|n| (n as f32 * 0.1).sin() * 0.3).collect();
    let frame = || Data::from(Tensor::from_f32(&x, &[1, 576], &Device::Cpu).unwrap());
    let rate = || whole(&[], [16_000]);
    let mut session = AnySession::new(&silero, 1, None).unwrap();
    let mut got = Vec::new();
    for _ in 0..3 {
        got.extend(only(session.run([("input", frame()), ("sr", rate())]).unwrap()));
    }
    let direct = OnnxModel::open(file("silero_vad.onnx"), &Device::Cpu).unwrap();
    let mut state = HostArray { shape: vec![2, 1, 128], data: HostData::Float(vec![0.0; 256]) };
    let x = HostArray { shape: vec![1, 576], data: HostData::Float(x.clone()) };
    let sr = HostArray { shape: vec![], data: HostData::Int(vec![16_000]) };
    for got in got {
        let mut out = direct.run([("input", &x), ("state", &state), ("sr", &sr)]).unwrap();
        state = out.pop().unwrap().1;
        assert_eq!(out[0].1.to_f32(), [got]);
    }
    assert_eq!(session.states(), ["state"]);
    assert_eq!(session.state("state").unwrap(), state);
    session.reset().unwrap();
    assert_eq!(session.state("state").unwrap().to_f32(), [0.0; 256]);
    session.set_state("state", &state).unwrap();
    assert_eq!(session.state("stateN").unwrap(), state);
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let silero = AnyModel::open(file("silero_vad.onnx"), &Device::Cpu).unwrap();
    let stars = AnyModel::open(file("stars.safetensors"), &Device::Cpu).unwrap();
    let backwards = AnyModel::open(file("g2pm.safetensors"), &Device::Cpu).unwrap();
    let pair = [StatePair { input: "input".into(), output: "nothing".into() }];
    for (model, batch, states, words) in [
        (&silero, 0, None, "`batch`: must be at least 1, but it is 0"),
        (&silero, 1, Some(&pair[..]), "nothing"),
        (&stars, 1, Some(&pair[..]), "names the states of an ONNX file"),
        (&backwards, 1, None, "reads forwards only"),
    ] {
        let refused = AnySession::new(model, batch, states).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
