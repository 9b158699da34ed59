/** Runs one SigmoidAttention call on a device from and to plain tensors. */

import { type AttentionInputs } from '../../op/constraints.js';
import { type Attributes, INPUTS, type InputName } from '../../op/schema.js';
import type { Tensor } from '../../op/tensor.js';
import { outputShapes, type SigmoidAttentionKernels } from '../../wgsl/attention.js';
import type { GpuTensor, GpuTensorType } from '../../wgsl/tensor.js';
import { BYTES_PER_ELEMENT } from '../../wgsl/tensor.js';
import { sizeOf } from '../../op/tensor.js';

export interface HostOutputs {
  readonly Y: Tensor;
  readonly present_key: Tensor;
  readonly present_value: Tensor;
}

/** Uploads a tensor; empty ones get a buffer of the least size. */
export function upload(device: GPUDevice, tensor: Tensor): GpuTensor {
  if (tensor.type === 'bfloat16') throw new Error('WGSL has no bfloat16');
  const { data, type, dims } = tensor;
  const size = Math.max(16, Math.ceil(data.byteLength / 16) * 16);
  const buffer = device.createBuffer({
    size,
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    mappedAtCreation: true,
  });
  new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  buffer.unmap();
  return { buffer, type, dims };
}

/** An output of the given shape, filled with a pattern that no result equals. */
function allocate(device: GPUDevice, type: GpuTensorType, dims: readonly number[]): GpuTensor {
  const size = Math.max(16, Math.ceil((sizeOf(dims) * BYTES_PER_ELEMENT[type]) / 16) * 16);
  const buffer = device.createBuffer({
    size,
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    mappedAtCreation: true,
  });
  new Uint8Array(buffer.getMappedRange()).fill(0x7b);
  buffer.unmap();
  return { buffer, type, dims };
}

async function download(device: GPUDevice, { buffer, type, dims }: GpuTensor): Promise<Tensor> {
  const staging = device.createBuffer({
    size: buffer.size,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const bytes = staging.getMappedRange().slice(0);
  staging.destroy();
  return type === 'float16'
    ? { type, dims, data: new Uint16Array(bytes, 0, sizeOf(dims)) }
    : { type: 'float', dims, data: new Float32Array(bytes, 0, sizeOf(dims)) };
}

/** All outputs of a call, present ones included. Rejects with the device's validation error if there is one. */
export async function runOnDevice(
  kernels: SigmoidAttentionKernels,
  inputs: AttentionInputs,
  attributes: Attributes,
): Promise<HostOutputs> {
  const { device } = kernels;
  device.pushErrorScope('validation');
  const buffers: GpuTensor[] = [];
  try {
    const onDevice: { [name in InputName]?: GpuTensor } = {};
    for (const { name } of INPUTS) {
      const tensor = inputs[name];
      if (tensor !== undefined) buffers.push((onDevice[name] = upload(device, tensor)));
    }
    const shapes = outputShapes(onDevice, attributes);
    const { type } = onDevice.Q!;
    const outputs = {
      Y: allocate(device, type, shapes.Y),
      present_key: allocate(device, type, shapes.present_key),
      present_value: allocate(device, type, shapes.present_value),
    };
    buffers.push(...Object.values(outputs));
    const encoder = device.createCommandEncoder();
    kernels.encode(encoder, onDevice, outputs, attributes);
    device.queue.submit([encoder.finish()]);
    return {
      Y: await download(device, outputs.Y),
      present_key: await download(device, outputs.present_key),
      present_value: await download(device, outputs.present_value),
    };
  } finally {
    for (const { buffer } of buffers) buffer.destroy();
    const error = await device.popErrorScope();
    if (error !== null) throw new Error(error.message);
  }
}
