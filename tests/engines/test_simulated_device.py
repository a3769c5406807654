"""SIMULATION: the simulated device notices what would corrupt memory on a real one; our device code never does it."""

from __future__ import annotations

import numpy as np
import pytest
from engines.simulation.cudart import SimulatedCuda, cudaMemcpyKind
from engines.simulation.heap import Heap, SimulationError

from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.errors import UnavailableError

UP, DOWN = cudaMemcpyKind.cudaMemcpyHostToDevice, cudaMemcpyKind.cudaMemcpyDeviceToHost


def test_use_after_free_is_noticed() -> None:
    heap = Heap()
    address = heap.allocate("device", 64)
    assert address is not None
    heap.free("device", address)
    with pytest.raises(SimulationError, match="use after free"):
        heap.check(address, 4, "device")
    with pytest.raises(SimulationError, match="use after free"):
        heap.free("device", address)


def test_access_beyond_a_block_is_noticed() -> None:
    heap = Heap()
    address = heap.allocate("device", 64)
    assert address is not None
    heap.check(address + 60, 4, "device")
    with pytest.raises(SimulationError, match="out of bounds"):
        heap.check(address + 60, 8, "device")
    with pytest.raises(SimulationError, match="never allocated"):
        heap.check(8, 4, "device")


def test_a_write_beside_a_block_is_noticed() -> None:
    heap = Heap()
    address = heap.allocate("host", 8)
    assert address is not None
    view = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_ubyte * 9).from_address(address))  # type: ignore[attr-defined]
    view[8] = 0
    with pytest.raises(SimulationError, match="wrote beside"):
        heap.check_zones()


def test_host_memory_is_no_device_memory() -> None:
    cuda = SimulatedCuda()
    _, stream = cuda.cudaStreamCreateWithFlags(1)
    _, host = cuda.cudaHostAlloc(16, 0)
    _, device = cuda.cudaMalloc(16)
    cuda.cudaMemcpyAsync(device, host, 16, DOWN, stream)
    with pytest.raises(SimulationError, match="host memory"):
        cuda.cudaStreamSynchronize(stream)


def test_work_runs_only_when_awaited() -> None:
    device = CudaDevice(cuda := SimulatedCuda())
    buffer = device.allocate((4,), "float32")
    device.upload(np.arange(4, dtype=np.float32), buffer)
    assert cuda.pending > 0
    device.synchronize()
    assert cuda.pending == 0


def test_staging_memory_is_not_overwritten_before_its_copy_ran() -> None:
    device = CudaDevice(SimulatedCuda())
    buffer, first = device.allocate((4,), "float32"), device.allocate((4,), "float32")
    device.upload(np.full(4, 1, np.float32), buffer)
    device.copy(buffer, first)
    device.upload(np.full(4, 2, np.float32), buffer)
    results = np.empty((2, 4), np.float32)
    device.download(first, results[0])
    device.download(buffer, results[1])
    assert results.tolist() == [[1] * 4, [2] * 4]


def test_views_copy_only_what_they_show() -> None:
    device = CudaDevice(SimulatedCuda())
    whole = device.allocate((2, 5, 3), "int32")
    given = np.arange(30, dtype=np.int32).reshape(2, 5, 3)
    device.upload(given, whole)
    view = device.view(whole, 1, 1, 4)
    assert not device.is_contiguous(view)
    assert device.is_contiguous(device.view(whole, 0, 1, 2))
    assert device.is_contiguous(device.view(whole, 1, 0, 5))
    piece = device.allocate((2, 3, 3), "int32")
    device.copy(view, piece)
    got = np.empty((2, 3, 3), np.int32)
    device.download(piece, got)
    assert (got == given[:, 1:4]).all()
    device.upload(-got, view)
    changed = np.empty((2, 5, 3), np.int32)
    device.download(whole, changed)
    assert (changed[:, 1:4] == -given[:, 1:4]).all()
    assert (changed[:, [0, 4]] == given[:, [0, 4]]).all()
    device.download(view, got)
    assert (got == -given[:, 1:4]).all()


def test_a_view_keeps_its_memory() -> None:
    device = CudaDevice(cuda := SimulatedCuda())
    view = device.view(device.allocate((4, 4), "float32"), 0, 1, 2)
    device.upload(np.ones((1, 4), np.float32), view)
    device.synchronize()
    assert cuda.heap.in_use == 64
    del view
    assert cuda.heap.live == 0


def test_a_full_device_is_an_error_with_a_remedy() -> None:
    device = CudaDevice(SimulatedCuda(capacity=1000))
    kept = device.allocate((100,), "float32")
    with pytest.raises(UnavailableError, match=r"cudaErrorMemoryAllocation; use smaller batches"):
        device.allocate((200,), "float32")
    assert kept.nbytes == 400


def test_a_failed_capture_leaves_the_stream_usable() -> None:
    device = CudaDevice(SimulatedCuda())

    def allocate() -> None:
        device.allocate((4,), "float32")

    with pytest.raises(UnavailableError, match="CaptureUnsupported"):
        device.capture(allocate)
    allocate()
    device.synchronize()
