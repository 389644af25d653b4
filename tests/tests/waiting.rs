//! Waiting for a GPU without blocking an executor.

use recurve::{Device, DeviceSelector, HostArray, OnnxOptions, Tensor, TensorError as E, without_blocking};
use recurve_tests::node_tests::NodeTest;
use recurve_tests::{Random, gpu};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

fn selector() -> DeviceSelector {
    format!("{}:{}", gpu().backend(), gpu().name()).parse().unwrap()
}

/// A minimal executor: it sleeps until it is woken, and only then polls.
struct Woken {
    thread: Thread,
    wakes: AtomicUsize,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// The result of a future, and how often it was woken and polled.
fn run<T>(future: impl Future<Output = T>) -> (T, usize, usize) {
    let woken = Arc::new(Woken { thread: thread::current(), wakes: AtomicUsize::new(0) });
    let waker = Waker::from(woken.clone());
    let mut future = pin!(future);
    let (mut polls, mut seen) = (0, 0);
    loop {
        polls += 1;
        if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (out, woken.wakes.load(Ordering::SeqCst), polls);
        }
        while woken.wakes.load(Ordering::SeqCst) == seen {
            thread::park();
        }
        seen = woken.wakes.load(Ordering::SeqCst);
    }
}

/// A recorded product that takes a device some time and has not started yet.
fn long_product(device: &Device) -> Tensor {
    let x = Tensor::full(&[512, 512], 0.5, recurve::DType::F32, device).unwrap();
    x.matmul(&x).unwrap().matmul(&x).unwrap()
}

async fn sums(x: &[f32], selector: &DeviceSelector) -> Result<(Vec<f32>, Vec<u32>), E> {
    let device = Device::open_async(selector).await?;
    let x = Tensor::from_f32(x, &[10, 100], &device)?;
    let y = x.matmul(&x.transpose(&[1, 0])?)?;
    device.synchronize_async().await?;
    Ok((y.to_vec_async().await?, y.argmax(1)?.to_vec_u32_async().await?))
}

#[test]
fn any_executor_gets_the_numbers_of_a_blocking_call() {
    fn sent<T: Send>(future: T) -> T {
        future
    }
    let x = Random(3).floats(1000, 1.0);
    let device = Device::open(&selector()).unwrap();
    let t = Tensor::from_f32(&x, &[10, 100], &device).unwrap();
    let y = t.matmul(&t.transpose(&[1, 0]).unwrap()).unwrap();
    let want = (y.to_vec().unwrap(), y.argmax(1).unwrap().to_vec_u32().unwrap());
    let (got, wakes, polls) = run(sent(sums(&x, &selector())));
    assert_eq!(got.unwrap(), want);
    // It was woken, and polled no more often than that: no busy polling.
    assert!(polls <= wakes + 1 && polls <= 12, "{polls} polls, {wakes} wakes");
    let by_pollster = thread::scope(|s| s.spawn(|| pollster::block_on(sums(&x, &selector()))).join().unwrap());
    assert_eq!(by_pollster.unwrap(), want);
    assert_eq!(run(sums(&x, &DeviceSelector::Cpu)).2, 1, "the CPU waits for nothing");
}

#[test]
fn an_executor_goes_on_while_the_device_works() {
    let device = Device::open(&selector()).unwrap();
    let y = long_product(&device);
    let mut reading = pin!(y.to_vec_async());
    assert!(reading.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // Meanwhile other calls may block.
    let two = Tensor::from_f32(&[2.0], &[1], &device).unwrap();
    assert_eq!(two.add(&two).unwrap().to_vec().unwrap(), [4.0]);
    let (got, ..) = run(reading);
    // Powers of two, so the result is exact.
    assert_eq!(got.unwrap(), vec![32_768.0; 1 << 18]);
}

#[test]
fn a_future_that_is_dropped_leaves_the_device_usable() {
    let device = Device::open(&selector()).unwrap();
    let x = Random(4).floats(1000, 1.0);
    let t = Tensor::from_f32(&x, &[1000], &device).unwrap();
    let y = long_product(&device);
    for n in 0..20 {
        let mut out = vec![0.0; 1000];
        {
            let (mut all, mut part) = (pin!(y.to_vec_async()), pin!(t.read_into_async(&mut out)));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(n > 0 || all.as_mut().poll(&mut cx).is_pending());
            let _ = part.as_mut().poll(&mut cx);
        }
        let double = t.add(&t).unwrap();
        assert_eq!(double.to_vec().unwrap(), x.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
        assert_eq!(run(t.to_vec_async()).0.unwrap(), x);
    }
    // Staging memory was returned to the pool: reading again makes no buffer.
    t.to_vec().unwrap();
    let made = device.buffers_made();
    t.to_vec().unwrap();
    assert_eq!(device.buffers_made(), made);
}

#[test]
fn a_lost_device_wakes_who_waits_for_it() {
    let device = Device::open(&selector()).unwrap();
    let y = long_product(&device);
    let (mut reading, mut other) = (pin!(y.to_vec_async()), pin!(device.synchronize_async()));
    let woken = Arc::new(Woken { thread: thread::current(), wakes: AtomicUsize::new(0) });
    let waker = Waker::from(woken.clone());
    assert!(reading.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let _ = other.as_mut().poll(&mut Context::from_waker(&waker));
    device.gpu().unwrap().destroy();
    assert!(woken.wakes.load(Ordering::SeqCst) > 0);
    assert!(matches!(run(reading).0, Err(E::DeviceLost { .. })));
    assert!(matches!(run(other).0, Err(E::DeviceLost { .. })));
    assert!(matches!(pollster::block_on(y.to_vec_async()), Err(E::DeviceLost { .. })));
    assert!(matches!(pollster::block_on(device.synchronize_async()), Err(E::DeviceLost { .. })));
}

#[test]
fn tensors_of_two_devices_are_read_by_one_call() {
    let devices = [gpu(), Device::open(&selector()).unwrap()];
    let x = Random(5).floats(300, 1.0);
    let [a, b] = devices.map(|d| Tensor::from_f32(&x, &[300], &d).unwrap());
    let (mut one, mut two) = (vec![0.0; 300], vec![0.0; 300]);
    Tensor::read_many([(&a, &mut one), (&b, &mut two)]).unwrap();
    assert_eq!((&one, &two), (&x, &x));
    let host = Tensor::from_f32(&x, &[300], &Device::Cpu).unwrap();
    one.fill(0.0);
    two.fill(0.0);
    run(Tensor::read_many_async([(&host, &mut one), (&b, &mut two)])).0.unwrap();
    assert_eq!((&one, &two), (&x, &x));
}

/// Models whose operators need numbers from the GPU on their way give the same bits without blocking.
#[test]
fn calls_that_read_on_their_way_need_not_block() {
    let device = gpu();
    let (mut models, mut waited) = (0, 0);
    for (name, case) in NodeTest::fixtures() {
        let Ok(model) = case.model(&device, &OnnxOptions::default()) else { continue };
        let inputs = case.inputs(&model);
        let given = || inputs.iter().map(|(n, a)| (&n[..], a));
        let Ok(want) = model.run(given()) else { continue };
        let mut calls = 0;
        let (got, ..) = run(without_blocking(|| {
            calls += 1;
            model.data(given())?;
            model.run(given())
        }));
        let bits = |all: &[(String, HostArray)]| format!("{all:?}");
        assert_eq!(bits(&got.unwrap_or_else(|e| panic!("{name}: {e}"))), bits(&want), "{name}");
        // Each output of floats is one read; what is more was read on the way.
        let floats = want.iter().filter(|(_, a)| a.data.ints().is_none()).count();
        waited += usize::from(calls > 1 + floats);
        models += 1;
    }
    println!("{waited} of {models} models read on their way");
    assert!(models > 300 && waited > 5, "{waited} of {models}");
}

/// The reads of a call that must not block are its own: others on the thread, before and after it, block as ever, and
/// an error of the call is its result.
#[test]
fn reads_are_replayed_in_their_order() {
    let device = gpu();
    let a = Tensor::from_f32(&[1.0, 2.0], &[2], &device).unwrap();
    let ids = Tensor::from_u32(&[7, 8, 9], &[3], &device).unwrap();
    let mut calls = 0;
    let (got, ..) = run(without_blocking(|| {
        calls += 1;
        // Other tensors in every call, with the same elements.
        let sum = (&a + &a)?.to_vec()?;
        let whole = ids.to_vec_u32()?;
        let mut both = ([0.0; 2], [0.0; 2]);
        Tensor::read_many([(&a, &mut both.0), (&a, &mut both.1)])?;
        Ok::<_, E>((sum, whole, both))
    }));
    assert_eq!(got.unwrap(), (vec![2.0, 4.0], vec![7, 8, 9], ([1.0, 2.0], [1.0, 2.0])));
    assert_eq!(calls, 5);
    assert_eq!(a.to_vec().unwrap(), [1.0, 2.0]);
    let (refused, ..) = run(without_blocking(|| {
        a.to_vec()?;
        ids.to_vec()
    }));
    assert!(matches!(refused, Err(E::DType { .. })), "{refused:?}");
}
