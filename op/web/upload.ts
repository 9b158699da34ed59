/** Bytes from the CPU into GPU buffers. */

import type { Tensor } from 'onnxruntime-common';

export function bytesOf(tensor: Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = tensor.data as Float32Array;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Writes bytes at the start of a buffer; the length is padded to the multiple of 4 that the queue needs. */
export function upload(device: GPUDevice, buffer: GPUBuffer, bytes: Uint8Array): void {
  const whole = bytes.byteLength - (bytes.byteLength % 4);
  const isShared = typeof SharedArrayBuffer !== 'undefined' && bytes.buffer instanceof SharedArrayBuffer;
  const source = (isShared ? bytes.slice() : bytes) as Uint8Array<ArrayBuffer>;
  if (whole > 0) device.queue.writeBuffer(buffer, 0, source.subarray(0, whole));
  if (whole === bytes.byteLength) return;
  const rest = new Uint8Array(4);
  rest.set(source.subarray(whole));
  device.queue.writeBuffer(buffer, whole, rest);
}
