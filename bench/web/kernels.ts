/** Our kernels on a device: results, and time of one call as the slope over calls in one submission. */

import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import type { GpuTensor } from '../../wgsl/tensor.js';
import { numberToFloat16 } from '../../op/half.js';
import { attributesOf } from './models.js';
import { clock, type Contender } from './race.js';
import type { BenchShape } from './shapes.js';

/** As often as ONNX Runtime submits: the GPU starts while the rest is encoded. */
const CALLS_PER_SUBMIT = 8;
const HEAT_BYTES = 2 ** 28;
const HEAT_MILLISECONDS = 1200;

export interface HostData {
  readonly x: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** Numbers of deviation about 1, the same everywhere. */
export function hostData({ heads, queryLength, keyLength, headSize }: BenchShape): HostData {
  const width = heads * headSize;
  const wave = (count: number, phase: number): Float32Array => {
    const values = new Float32Array(count);
    for (let i = 0; i < count; i++) values[i] = WAVE[(i * phase) % WAVE.length]!;
    return values;
  };
  return { x: wave(queryLength * width, 1), k: wave(keyLength * width, 2), v: wave(keyLength * width, 3) };
}

/** As many as a prime, so that no two rows are equal. */
const WAVE = Float32Array.from({ length: 65_537 }, (_, i) => 1.4 * Math.sin(12.9898 * i + (i % 7)));

export function bytesOf(values: Float32Array, type: BenchShape['type']): Float32Array | Uint16Array {
  return type === 'f32' ? values : Uint16Array.from(values, numberToFloat16);
}

export class KernelBench {
  readonly device: GPUDevice;
  readonly #kernels: SigmoidAttentionKernels;

  constructor(device: GPUDevice) {
    this.device = device;
    this.#kernels = new SigmoidAttentionKernels(device);
  }

  tensor(values: Float32Array, shape: BenchShape, length: number): GpuTensor {
    const data = bytesOf(values, shape.type);
    const buffer = this.device.createBuffer({
      size: data.byteLength,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      mappedAtCreation: true,
    });
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer));
    buffer.unmap();
    return {
      buffer,
      type: shape.type === 'f32' ? 'float' : 'float16',
      dims: [1, length, shape.heads * shape.headSize],
    };
  }

  /** A function that runs `calls` calls in one submission and returns their milliseconds; and the result. */
  prepare(shape: BenchShape): {
    run(calls: number): Promise<number>;
    result(): Promise<ArrayBuffer>;
    free(): void;
  } {
    const data = hostData(shape);
    const Q = this.tensor(data.x, shape, shape.queryLength);
    const K = this.tensor(data.k, shape, shape.keyLength);
    const V = this.tensor(data.v, shape, shape.keyLength);
    const Y = this.tensor(data.x, shape, shape.queryLength);
    const run = async (calls: number): Promise<number> => {
      const start = clock.milliseconds();
      for (let done = 0; done < calls; done += CALLS_PER_SUBMIT) {
        const encoder = this.device.createCommandEncoder();
        for (let call = done; call < Math.min(calls, done + CALLS_PER_SUBMIT); call++)
          this.#kernels.encode(encoder, { Q, K, V }, { Y }, attributesOf(shape));
        this.device.queue.submit([encoder.finish()]);
      }
      await this.device.queue.onSubmittedWorkDone();
      return clock.milliseconds() - start;
    };
    return {
      run,
      result: () => this.read(Y.buffer),
      free: () => [Q, K, V, Y].forEach(({ buffer }) => buffer.destroy()),
    };
  }

  async read(buffer: GPUBuffer): Promise<ArrayBuffer> {
    const staging = this.device.createBuffer({
      size: buffer.size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const copy = staging.getMappedRange().slice(0);
    staging.destroy();
    return copy;
  }

  /** Keeps the GPU busy for a second or so: idle ones fall to a fifth of their clock and take that long to come back. */
  async heat(): Promise<void> {
    const { run, free } = this.copy(HEAT_BYTES);
    const start = performance.now();
    while (performance.now() - start < HEAT_MILLISECONDS) await run(20);
    free();
  }

  /** A contender whose repetitions are plain copies of so many bytes from buffer to buffer. */
  copy(bytes: number): Contender & { free(): void } {
    const code = `
      @group(0) @binding(0) var<storage, read> source: array<vec4f>;
      @group(0) @binding(1) var<storage, read_write> target_: array<vec4f>;
      @compute @workgroup_size(256) fn copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
        let i = id.x + id.y * n.x * 256u;
        target_[i] = source[i];
      }`;
    const buffer = (): GPUBuffer => this.device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE });
    const buffers = [buffer(), buffer()];
    const module = this.device.createShaderModule({ code });
    const pipeline = this.device.createComputePipeline({
      layout: 'auto',
      compute: { module, entryPoint: 'copy' },
    });
    const group = this.device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: buffers.map((resource, binding) => ({ binding, resource: { buffer: resource } })),
    });
    const groups = bytes / 16 / 256;
    const x = Math.min(groups, 32768);
    return {
      lengths: [5, 45],
      run: async (copies) => {
        const start = clock.milliseconds();
        const encoder = this.device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        for (let copy = 0; copy < copies; copy++) pass.dispatchWorkgroups(x, Math.ceil(groups / x));
        pass.end();
        this.device.queue.submit([encoder.finish()]);
        await this.device.queue.onSubmittedWorkDone();
        return clock.milliseconds() - start;
      },
      free: () => buffers.forEach((own) => own.destroy()),
    };
  }
}
