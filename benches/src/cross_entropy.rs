//! Loss and gradient of the sparse cross-entropy over many classes: as one operator, and as the logarithm of a softmax
//! times one-hot labels.

use crate::counting;
use recurve::{DType, Device, Reduction, Tensor};
use recurve_benches::quantile;
use recurve_graph::ops::{Binary, CrossEntropy, Extent, Map, OneHot, ReduceOver, Reshape, Shares, SoftmaxOver};
use recurve_graph::{Assembly, Constant, Element, Executor, Int, Operator, RunOptions, ValueId, ValueType};
use recurve_tensor::Function;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

/// Rows and classes.
const SIZES: [[usize; 2]; 2] = [[512, 50_000], [4096, 1000]];

fn graph(one: bool, [rows, classes]: [usize; 2], device: &Device) -> Result<Executor, Box<dyn Error>> {
    let mut a = Assembly::new(false);
    let x = a.input("x", ValueType::new(DType::F32, [rows, classes]), false)?;
    let y = a.input("y", ValueType::new(Element::U32, [rows]), false)?;
    let node = |a: &mut Assembly, operator: Arc<dyn Operator>, inputs: &[ValueId], outputs: usize| {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        a.derived("loss", operator, &inputs, outputs).map(|made| made[0])
    };
    let reduce = |reduction, axes: Vec<i64>| {
        Arc::new(ReduceOver { reduction, axes, keep_dims: false, noop: false, int: None }) as Arc<dyn Operator>
    };
    let losses = if one {
        node(&mut a, Arc::new(CrossEntropy { smoothing: 0.0 }), &[x, y], 2)?
    } else {
        let depth = a.constant("depth", &[1], Constant::Int(Int::I64, [classes as i64].into()))?;
        let values = a.constant("values", &[2], Constant::Float([0.0, 1.0].into()))?;
        let softmax = SoftmaxOver { shares: Shares::LogSoftmax, axis: -1, flattened: false };
        let logarithms = node(&mut a, Arc::new(softmax), &[x], 1)?;
        let labels = node(&mut a, Arc::new(OneHot { axis: -1 }), &[y, depth, values], 1)?;
        let parts = node(&mut a, Arc::new(Binary::Mul), &[labels, logarithms], 1)?;
        let sums = node(&mut a, reduce(Reduction::Sum, vec![-1]), &[parts], 1)?;
        node(&mut a, Arc::new(Map { function: Function::Neg, element: Element::F32 }), &[sums], 1)?
    };
    let mean = node(&mut a, reduce(Reduction::Mean, Vec::new()), &[losses], 1)?;
    let loss = node(&mut a, Arc::new(Reshape(vec![Extent::Size(1)])), &[mean], 1)?;
    let gradient = a.gradients(loss, &[x])?[0].ok_or("the loss depends on x")?;
    let graph = a.finish(vec![("loss".into(), loss), ("gradient".into(), gradient)])?;
    Ok(Executor::new(Arc::new(graph), |_| None, device)?)
}

/// Rows of CSV for each size.
pub(crate) fn run(device: &str) -> Result<(), Box<dyn Error>> {
    let device = Device::open(&device.parse()?)?;
    println!("# {device}");
    println!("rows,classes,one_operator_ms,one_hot_ms,one_operator_mb,one_hot_mb,difference_of_losses");
    for sizes in SIZES {
        let [rows, classes] = sizes;
        let x = Tensor::rand_uniform(&sizes, -3.0..3.0, 1, &device)?;
        let labels: Vec<u32> = (0..rows).map(|n| (n * 97 % classes) as u32).collect();
        let y = Tensor::from_u32(&labels, &[rows], &device)?;
        let ways = [graph(true, sizes, &device)?, graph(false, sizes, &device)?];
        let pool = || device.gpu().map_or(0, |g| g.bytes_held());
        let (mut times, mut most, mut losses) = ([const { Vec::new() }; 2], [0; 2], [0.0f32; 2]);
        // They take turns; the first call of each is left out.
        for round in 0..6 {
            for (n, way) in ways.iter().enumerate() {
                device.synchronize()?;
                device.trim();
                let (before, held) = (counting::start(), pool());
                let start = Instant::now();
                let outputs = way.run(&[Some(&x), Some(&y)], &RunOptions::default())?;
                let loss = outputs.first().and_then(|o| o.as_ref()?.as_tensor()).ok_or("the loss is a tensor")?;
                losses[n] = loss.to_vec()?[0];
                if round > 0 {
                    times[n].push(start.elapsed().as_secs_f64() * 1e3);
                }
                let used = if device.gpu().is_some() { pool() - held } else { counting::most() - before };
                most[n] = most[n].max(used);
            }
        }
        let [one, other] = times.map(|t| quantile(&t, 0.5));
        let [one_mb, other_mb] = most.map(|bytes| bytes as f64 / 1e6);
        let difference = (losses[0] - losses[1]).abs();
        println!("{rows},{classes},{one:.1},{other:.1},{one_mb:.1},{other_mb:.1},{difference:.1e}");
    }
    Ok(())
}
