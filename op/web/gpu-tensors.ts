/** Tensors over GPU buffers of our pool, and their way back to the CPU. */

import type { Tensor } from 'onnxruntime-common';
import type { DeviceContext } from './device-context.js';
import { byteLengthOf, type OrtModule, tensorFromBytes } from './runtime.js';

/** A tensor that gives its buffer back to the pool when it is disposed of. */
export function pooledTensor(
  ort: OrtModule,
  context: DeviceContext,
  buffer: GPUBuffer,
  type: Tensor.Type,
  dims: readonly number[],
): Tensor {
  return ort.Tensor.fromGpuBuffer(buffer, {
    dataType: type as 'float32',
    dims,
    download: async () => (await download(ort, context, [{ buffer, type, dims }]))[0]!.data as Float32Array,
    dispose: () => context.buffers.release(buffer),
  });
}

interface OnGpu {
  readonly buffer: GPUBuffer;
  readonly type: Tensor.Type;
  readonly dims: readonly number[];
}

/**
 * Copies of GPU tensors in CPU memory, read in one go.
 *
 * @param encoder holds commands that are submitted before
 */
export async function download(
  ort: OrtModule,
  { device, buffers }: DeviceContext,
  tensors: readonly OnGpu[],
  encoder: GPUCommandEncoder = device.createCommandEncoder({ label: 'read outputs' }),
): Promise<Tensor[]> {
  const staged: { staging: GPUBuffer; bytes: number }[] = [];
  try {
    for (const { type, dims } of tensors) {
      const bytes = byteLengthOf(type, dims);
      staged.push({ staging: await buffers.acquire(bytes, 'readback'), bytes });
    }
    staged.forEach(({ staging, bytes }, index) => {
      if (bytes > 0)
        encoder.copyBufferToBuffer(tensors[index]!.buffer, 0, staging, 0, Math.ceil(bytes / 4) * 4);
    });
    device.queue.submit([encoder.finish()]);
    await Promise.all(staged.map(({ staging }) => staging.mapAsync(GPUMapMode.READ)));
    return staged.map(({ staging, bytes }, index) => {
      const data = staging.getMappedRange().slice(0, bytes);
      staging.unmap();
      return tensorFromBytes(ort, tensors[index]!.type, data, tensors[index]!.dims);
    });
  } finally {
    for (const { staging } of staged) buffers.release(staging);
  }
}
