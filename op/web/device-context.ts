/** What sessions on one GPU device share: the kernels and the buffers. Freed when the last session is released. */

import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import { BufferPool } from './buffers.js';

export class DeviceContext {
  readonly device: GPUDevice;
  readonly kernels: SigmoidAttentionKernels;
  readonly buffers: BufferPool;
  /** Rejects when the device is lost; never resolves. */
  readonly lost: Promise<never>;
  /** Input shapes of all sessions whose runs are repeated. */
  replays = 0;
  #sessions = 0;

  private constructor(device: GPUDevice) {
    this.device = device;
    this.kernels = new SigmoidAttentionKernels(device);
    this.buffers = new BufferPool(device);
    this.lost = device.lost.then(({ reason, message }) => {
      contexts.delete(device);
      throw new Error(`the WebGPU device was lost (${reason}: ${message}); create the session again`);
    });
    this.lost.catch(() => undefined);
  }

  /** The context of a device, for one more session. */
  static acquire(device: GPUDevice): DeviceContext {
    let context = contexts.get(device);
    if (context === undefined) contexts.set(device, (context = new DeviceContext(device)));
    context.#sessions++;
    return context;
  }

  /** Ends the use by one session. */
  release(): void {
    if (--this.#sessions > 0) return;
    contexts.delete(this.device);
    this.buffers.trim();
    this.kernels.destroy();
  }
}

const contexts = new Map<GPUDevice, DeviceContext>();

/** GPU memory that this package holds on the page, all devices together; for tests and for the curious. */
export function gpuResources(): {
  buffers: number;
  pipelines: number;
  uniforms: number;
  scratchBytes: number;
  replays: number;
} {
  const total = { buffers: 0, pipelines: 0, uniforms: 0, scratchBytes: 0, replays: 0 };
  for (const { kernels, buffers, replays } of contexts.values()) {
    const { pipelines, uniforms, scratchBytes } = kernels.counts;
    total.buffers += buffers.alive;
    total.pipelines += pipelines;
    total.uniforms += uniforms;
    total.scratchBytes += scratchBytes;
    total.replays += replays;
  }
  return total;
}
