"""The device and the number of threads that Ray's reservation of a worker asks for."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import warnings

import ray

import recurve

_PCI = re.compile(r"^(?:([0-9a-f]{1,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$")


def pci_address(text: str) -> str | None:
    """A place on the PCI bus as :func:`recurve.devices` writes it.

    Parameters
    ----------
    text : str
        ``domain:bus:device.function`` in hexadecimal, with a domain of any number of digits.

    Returns
    -------
    str or None
        None for any other text.

    Examples
    --------
    >>> pci_address("00000000:E1:00.0")
    '0000:e1:00.0'
    """
    found = _PCI.match(text.strip().lower())
    if found is None:
        return None
    domain, bus, device, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}"


def _from_nvidia_smi() -> list[tuple[str, str, str]]:
    """Index, UUID and place on the bus of each NVIDIA GPU, as ``nvidia-smi`` tells them; empty without it."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in done.stdout.splitlines():
        fields = [field.strip() for field in line.split(",")]
        place = pci_address(fields[2]) if len(fields) == 3 else None
        if place is not None:
            gpus.append((fields[0], fields[1], place))
    return gpus


def _from_proc(root: str = "/proc/driver/nvidia/gpus") -> list[tuple[str, str, str]]:
    """The same from the files of NVIDIA's driver for Linux. Its indices follow the order of the places on the bus."""
    found = []
    for path in glob.glob(os.path.join(glob.escape(root), "*", "information")):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            continue
        place = pci_address(lines.get("Bus Location", ""))
        if place is not None:
            found.append((place, lines.get("GPU UUID", "").strip()))
    return [(str(index), uuid, place) for index, (place, uuid) in enumerate(sorted(found))]


def gpu_place(gpu: str) -> str | None:
    """Where a GPU is on the PCI bus, by what Ray and ``CUDA_VISIBLE_DEVICES`` call it.

    Parameters
    ----------
    gpu : str
        An index, a UUID (``GPU-…``) or the beginning of one.

    Returns
    -------
    str or None
        ``0000:65:00.0``; None if no driver tells.
    """
    for gpus in (_from_nvidia_smi(), _from_proc()):
        for index, uuid, place in gpus:
            if gpu == index or (gpu.startswith("GPU-") and uuid.startswith(gpu)):
                return place
    return None


def assigned_gpus() -> list[str]:
    """The GPUs that Ray has reserved for this worker, by index or UUID; empty outside of a worker."""
    if not ray.is_initialized():
        return []
    gpus: list[str] = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return gpus


def choose_device(device: str | recurve.Device = "auto") -> str | recurve.Device:
    """The device for a model in this worker.

    ``"auto"`` becomes the GPU that Ray has reserved, found by its place on the PCI bus (``pci:0000:65:00.0``), because
    Vulkan does not know ``CUDA_VISIBLE_DEVICES`` and lists all GPUs to all workers; or the CPU if Ray has reserved
    none. Anything else is returned as it is.

    Where the place cannot be found, a warning says so, and the device is ``gpu``, the first GPU, or the CPU if there is
    no GPU at all.

    Parameters
    ----------
    device : str or recurve.Device
        As in :func:`recurve.load`.

    Returns
    -------
    str or recurve.Device
        What :func:`recurve.load` takes.
    """
    if device != "auto":
        return device
    gpus = assigned_gpus()
    if not gpus:
        return "cpu"
    adapters = [d for d in recurve.devices() if d.backend != "cpu" and d.kind != "software"]
    place = gpu_place(gpus[0])
    if place is not None and any(d.pci == place for d in adapters):
        if len(gpus) > 1:
            warnings.warn(
                f"Ray has reserved {len(gpus)} GPUs for this worker, and a model runs on one: it runs on GPU {gpus[0]}",
                RuntimeWarning,
                stacklevel=2,
            )
        return f"pci:{place}"
    chosen = "gpu" if adapters else "cpu"
    why = "no driver tells its place on the PCI bus" if place is None else f"no adapter of Recurve's is at pci:{place}"
    there = ", ".join(f"{d.name} ({d.pci or 'place unknown'})" for d in adapters) or "none"
    warnings.warn(
        f"Ray has reserved GPU {gpus[0]}, but {why} (GPUs of Recurve's: {there}): "
        f"the model runs on `{chosen}`; `device=` chooses another one",
        RuntimeWarning,
        stacklevel=2,
    )
    return chosen


def limit_threads(threads: int | None = None) -> None:
    """Lets the CPU code use as many threads as Ray has reserved CPUs for this worker, at least one.

    The threads are those of rayon, which are started by the first computation of a process and read
    ``RAYON_NUM_THREADS`` then. A number that is set there already is kept, so that ``runtime_env`` decides.

    Parameters
    ----------
    threads : int, optional
        Another number.
    """
    if threads is None:
        if "RAYON_NUM_THREADS" in os.environ or not ray.is_initialized():
            return
        context = ray.get_runtime_context()
        if context.worker.mode != ray.WORKER_MODE:
            return
        threads = max(1, int(context.get_assigned_resources().get("CPU", 1)))
    if threads < 1:
        raise ValueError(f"threads must be at least 1, but it is {threads}")
    os.environ["RAYON_NUM_THREADS"] = str(threads)
