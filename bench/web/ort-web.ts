/**
 * ONNX Runtime Web in Node, on a Dawn device: the same code that runs in a browser. A measuring aid only: Dawn's binding takes
 * no shared memory, so that its writes are copied first.
 */

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type * as Ort from 'onnxruntime-web/webgpu';

export type OrtWeb = typeof Ort;

/** The runtime; name one of `devices` in every session's options. */
export async function loadOrtWeb(gpu: GPU, devices: readonly GPUDevice[]): Promise<OrtWeb> {
  Object.defineProperty(globalThis, 'navigator', {
    value: { gpu, hardwareConcurrency: 1, userAgent: 'node' },
    configurable: true,
  });
  devices.forEach(copyBeforeWriting);
  const ort = await import('onnxruntime-web/webgpu');
  const folder = dirname(fileURLToPath(import.meta.resolve('onnxruntime-web/webgpu')));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = readFileSync(join(folder, 'ort-wasm-simd-threaded.asyncify.wasm'))
    .buffer as ArrayBuffer;
  ort.env.logLevel = 'error';
  return ort;
}

function copyBeforeWriting({ queue }: GPUDevice): void {
  const write = queue.writeBuffer.bind(queue);
  queue.writeBuffer = ((
    buffer: GPUBuffer,
    offset: number,
    data: ArrayBufferView | ArrayBuffer,
    from = 0,
    size?: number,
  ) => {
    const view = ArrayBuffer.isView(data)
      ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      : new Uint8Array(data);
    const unit = 'BYTES_PER_ELEMENT' in data ? Number(data.BYTES_PER_ELEMENT) : 1;
    const end = size === undefined ? view.length : (from + size) * unit;
    write(buffer, offset, view.slice(from * unit, end));
  }) as GPUQueue['writeBuffer'];
}
