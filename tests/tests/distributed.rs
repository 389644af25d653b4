//! Training by several processes: this binary runs itself as two processes that sum their gradients over a socket.

use recurve::{BatchNormalization, Dense, Device, Lstm, Network, Sequential, Tensor};
use recurve_train::{Adam, Batch, Clip, Form, Loss, StepOptions, Training};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const STEPS: usize = 10;
const SAMPLES: usize = 16;
/// The samples of the first process; the second has the others.
const FIRST: usize = 11;

/// The environment of a worker: its rank, the port of the first one, and after how many steps it goes or falls silent.
const RANK: &str = "RECURVE_TEST_RANK";
const PORT: &str = "RECURVE_TEST_PORT";
const END: &str = "RECURVE_TEST_END";

fn network(normalized: bool) -> Network {
    let layers = Sequential::new();
    let layers = if normalized { layers.add(BatchNormalization::new().momentum(0.5)) } else { layers };
    let layers = layers.add(Lstm::new(6)).add(Dense::new(2));
    layers.seed(3).build(&[None, None, Some(3)], &Device::Cpu).unwrap()
}

fn training(network: &Network) -> Training {
    let options = StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.01));
    Training::new(network, options.clip(Clip::GlobalNorm { norm: 0.5, form: Form::Keras })).unwrap()
}

/// Inputs and targets of some samples.
fn data(samples: core::ops::Range<usize>) -> [Tensor; 2] {
    let part = |width: usize, dims: &[usize], seed: u64| {
        let all = Tensor::rand_uniform(&[SAMPLES, width], -1.0..1.0, seed, &Device::Cpu).unwrap().to_vec().unwrap();
        Tensor::from_f32(&all[samples.start * width..samples.end * width], dims, &Device::Cpu).unwrap()
    };
    [part(15, &[samples.len(), 5, 3], 1), part(2, &[samples.len(), 2], 2)]
}

/// Adds up arrays of two processes: the second sends its own, the first sends the sum back.
fn all_reduce(stream: &mut TcpStream, rank: usize, array: &mut [f32]) -> io::Result<()> {
    let mut bytes = vec![0; array.len() * 4];
    let numbers = |bytes: &[u8]| bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>();
    let write = |stream: &mut TcpStream, array: &[f32]| {
        stream.write_all(&array.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    };
    if rank == 0 {
        stream.read_exact(&mut bytes)?;
        array.iter_mut().zip(numbers(&bytes)).for_each(|(a, b)| *a += b);
        return write(stream, array);
    }
    write(stream, array)?;
    stream.read_exact(&mut bytes)?;
    array.copy_from_slice(&numbers(&bytes));
    Ok(())
}

fn worker(rank: usize, end: &str) -> Result<Training, Box<dyn std::error::Error>> {
    let mut stream = if rank == 0 {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("port {}", listener.local_addr()?.port());
        listener.accept()?.0
    } else {
        TcpStream::connect(("127.0.0.1", std::env::var(PORT)?.parse()?))?
    };
    let patience = Duration::from_secs(if end == "silent" { 1 } else { 60 });
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;

    let mut training = training(&network(false));
    // The second begins with other weights, and takes over those of the first.
    let mut weights = training.flat_weights()?;
    weights.iter_mut().for_each(|v| *v *= if rank == 0 { 1.0 } else { 0.0 });
    all_reduce(&mut stream, rank, &mut weights)?;
    training.set_flat_weights(&weights)?;

    let [x, y] = data(if rank == 0 { 0..FIRST } else { FIRST..SAMPLES });
    for step in 0..STEPS {
        if rank == 1 && step == 4 && end == "dies" {
            std::process::exit(9);
        }
        if rank == 1 && step == 4 && end == "silent" {
            // Until the test ends it.
            std::thread::sleep(Duration::from_secs(600));
        }
        let (_, mut flat) = training.flat_gradients(&Batch::new(&[&x], &[&y]), x.dims()[0] as f32)?;
        all_reduce(&mut stream, rank, &mut flat)?;
        let loss = training.apply_flat(&flat)?;
        println!("loss {loss}");
    }
    Ok(training)
}

/// What a process does that the tests below have started; a test that has nothing to do otherwise.
#[test]
fn as_a_worker() {
    let Ok(rank) = std::env::var(RANK) else { return };
    let end = std::env::var(END).unwrap_or_default();
    match worker(rank.parse().unwrap(), &end) {
        Ok(training) => {
            let weights = training.flat_weights().unwrap();
            println!("weights {}", weights.iter().map(|v| v.to_bits().to_string()).collect::<Vec<_>>().join(" "));
        }
        Err(e) => println!("failed {e}"),
    }
}

/// A process that is ended with the test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(rank: usize, port: &str, end: &str) -> (Worker, impl Iterator<Item = String>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_a_worker", "--nocapture", "--test-threads", "1"]);
    command.env(RANK, rank.to_string()).env(PORT, port).env(END, end);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (Worker(child), lines)
}

/// Both workers, with what each says.
fn pair(end: &str) -> [Vec<String>; 2] {
    let (first, mut lines) = start(0, "", end);
    let port = lines.find_map(|l| l.split_once("port ").map(|(_, p)| p.to_owned())).expect("the first one's port");
    let (second, others) = start(1, &port, end);
    let first_lines = lines.collect();
    drop(first);
    // The first one knows by itself that the second has fallen silent.
    if end == "silent" {
        drop(second);
        return [first_lines, others.collect()];
    }
    let second_lines = others.collect();
    drop(second);
    [first_lines, second_lines]
}

fn after<'a>(lines: &'a [String], word: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|l| l.split_once(word).map(|(_, rest)| rest.trim())).collect()
}

/// Ten steps of two processes with parts of different sizes are those of one process with all of them. Both sums are of
/// f32 in another order; the bound on the weights is 1e-6.
#[test]
fn two_processes_train_as_one() {
    let mut whole = training(&network(false));
    let before = whole.flat_weights().unwrap();
    let [x, y] = data(0..SAMPLES);
    let losses: Vec<f32> =
        (0..STEPS).map(|_| whole.step(&Batch::new(&[&x], &[&y])).unwrap().loss.to_vec().unwrap()[0]).collect();
    let want = whole.flat_weights().unwrap();

    let said = pair("");
    let weights = said.each_ref().map(|lines| {
        let weights = after(lines, "weights ");
        assert_eq!(weights.len(), 1, "{lines:?}");
        weights[0].split(' ').map(|v| f32::from_bits(v.parse().unwrap())).collect::<Vec<_>>()
    });
    assert_eq!(weights[0], weights[1], "both have the same bits");
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!(weights[0].len(), want.len());
    assert!(distance(&weights[0], &want) < 1e-6, "{}", distance(&weights[0], &want));
    assert!(distance(&before, &want) > 0.01, "nothing was learned");
    let got: Vec<f32> = after(&said[1], "loss ").iter().map(|l| l.parse().unwrap()).collect();
    assert!(got.len() == STEPS && distance(&got, &losses) < 1e-5, "{got:?} {losses:?}");

    // Without the weights of the parts the steps are others.
    let mut equal = training(&network(false));
    let parts = [data(0..FIRST), data(FIRST..SAMPLES)];
    for _ in 0..STEPS {
        let mut sum = vec![0.0; equal.flat_len()];
        for [x, y] in &parts {
            let (_, flat) = equal.flat_gradients(&Batch::new(&[x], &[y]), 1.0).unwrap();
            sum.iter_mut().zip(flat).for_each(|(a, b)| *a += b);
        }
        equal.apply_flat(&sum).unwrap();
    }
    assert!(distance(&equal.flat_weights().unwrap(), &want) > 1e-5);
}

#[test]
fn a_worker_that_dies_is_an_error() {
    let [first, second] = pair("dies");
    assert_eq!(after(&first, "loss ").len(), 4, "{first:?}");
    assert_eq!(after(&first, "failed ").len(), 1, "{first:?}");
    assert!(after(&second, "weights ").is_empty());
}

#[test]
fn a_worker_that_falls_silent_is_an_error() {
    let [first, second] = pair("silent");
    assert_eq!(after(&first, "loss ").len(), 4, "{first:?}");
    assert_eq!(after(&first, "failed ").len(), 1, "{first:?}");
    assert!(after(&second, "weights ").is_empty());
}

/// The array has running means and variances too, which become the mean of what the parts make of them.
#[test]
fn running_means_are_in_the_array() {
    let network = network(true);
    let mut parts = training(&network);
    let layout = parts.flat_layout();
    let names: Vec<&str> = layout.iter().filter(|p| p.trained).map(|p| &p.name[..]).collect();
    assert_eq!(names, parts.names().collect::<Vec<_>>());
    let moved: Vec<&str> = layout.iter().filter(|p| !p.trained).map(|p| &p.name[..]).collect();
    assert_eq!(moved, ["layers.0.running_mean", "layers.0.running_var"]);
    assert!(layout.windows(2).all(|w| w[0].range.end == w[1].range.start));
    assert_eq!(parts.flat_len(), layout.last().unwrap().range.end + 2);

    // One part is a step.
    let mut whole = training(&network);
    let [x, y] = data(0..SAMPLES);
    for _ in 0..STEPS {
        let (loss, flat) = parts.flat_gradients(&Batch::new(&[&x], &[&y]), 4.0).unwrap();
        let mean = parts.apply_flat(&flat).unwrap();
        let step = whole.step(&Batch::new(&[&x], &[&y])).unwrap().loss.to_vec().unwrap()[0];
        assert!((mean - step).abs() < 1e-6 && (loss - step).abs() < 1e-6);
    }
    let [got, want] = [&parts, &whole].map(|t| t.flat_weights().unwrap());
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!(parts.steps(), whole.steps());
}

#[test]
fn bad_arrays_are_refused_and_change_nothing() {
    let network = network(true);
    let mut training = training(&network);
    let [x, y] = data(0..SAMPLES);
    let (inputs, targets) = ([&x], [&y]);
    let batch = Batch::new(&inputs, &targets);
    for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let e = training.flat_gradients(&batch, weight).unwrap_err().to_string();
        assert!(e.contains("weight"), "{e}");
    }
    let (_, good) = training.flat_gradients(&batch, 2.0).unwrap();
    let before = training.flat_weights().unwrap();
    let changed = |change: &dyn Fn(&mut Vec<f32>)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    for (bad, words) in [
        (changed(&|b| b.truncate(3)), "elements"),
        (changed(&|b| b.push(1.0)), "elements"),
        (changed(&|b| *b.last_mut().unwrap() = 0.0), "weight"),
        (changed(&|b| *b.last_mut().unwrap() = f32::NAN), "weight"),
        (changed(&|b| b[0] = f32::NAN), "not finite in `layers.0.weight`"),
    ] {
        let e = training.apply_flat(&bad).unwrap_err().to_string();
        assert!(e.contains(words), "{words}: {e}");
        assert_eq!(training.flat_weights().unwrap(), before);
        assert_eq!(training.steps(), 0);
    }
    assert!(training.set_flat_weights(&before[1..]).is_err());
    let mut bad = before.clone();
    bad[1] = f32::INFINITY;
    assert!(training.set_flat_weights(&bad).unwrap_err().to_string().contains("not finite"));
    training.apply_flat(&good).unwrap();
    assert_ne!(training.flat_weights().unwrap(), before);
}
