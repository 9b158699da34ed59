/** Our kernels on a device: results, and time of one call as the slope over calls in one submission. */

import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import type { GpuTensor } from '../../wgsl/tensor.js';
import { float16ToNumber, numberToFloat16 } from '../../op/half.js';
import { attributesOf } from './models.js';
import { clock, type Contender } from './race.js';
import type { BenchShape } from './shapes.js';

/** As often as ONNX Runtime submits: the GPU starts while the rest is encoded. */
const CALLS_PER_SUBMIT = 8;
/** At most, and at least where the clock was seen before. */
const HEAT_MILLISECONDS = 1500;
const SHORT_HEAT_MILLISECONDS = 200;
const HEAT_LOOPS = 50;
const ARITHMETIC_STEPS = 1024;
const ARITHMETIC_GROUPS = 4096;
/** Of one repetition of {@link KernelBench.arithmetic}. */
export const ARITHMETIC_FLOPS = ARITHMETIC_GROUPS * 256 * ARITHMETIC_STEPS * 8 * 2;

type Numbers = Float32Array | Uint16Array;

export interface HostData<T extends Numbers = Numbers> {
  readonly x: T;
  readonly k: T;
  readonly v: T;
}

/** Numbers of deviation about 1; as many as a prime, so that no two rows are equal. */
const WAVE = Float32Array.from({ length: 65_537 }, (_, i) => 1.4 * Math.sin(12.9898 * i + (i % 7)));
const HALVES = Uint16Array.from(WAVE, numberToFloat16);
const ROUNDED = Float32Array.from(HALVES, float16ToNumber);

/** The tensors of a shape, the same everywhere, as numbers that its type represents. */
export function hostData(shape: BenchShape): HostData<Float32Array> {
  return drawn(shape, shape.type === 'f32' ? WAVE : ROUNDED, (count) => new Float32Array(count));
}

/** The same as they are stored. */
export function storedData(shape: BenchShape): HostData {
  return shape.type === 'f32' ? hostData(shape) : drawn(shape, HALVES, (count) => new Uint16Array(count));
}

function drawn<T extends Numbers>(
  { heads, queryLength, keyLength, headSize }: BenchShape,
  table: T,
  allocate: (count: number) => T,
): HostData<T> {
  const width = heads * headSize;
  const wave = (count: number, phase: number): T => {
    const values = allocate(count);
    for (let i = 0; i < count; i++) values[i] = table[(i * phase) % table.length]!;
    return values;
  };
  return { x: wave(queryLength * width, 1), k: wave(keyLength * width, 2), v: wave(keyLength * width, 3) };
}

export interface Repeated extends Contender {
  readonly runOnGpu: Contender['run'] | null;
  free(): void;
}

export class KernelBench {
  readonly device: GPUDevice;
  readonly #kernels: SigmoidAttentionKernels;
  /** Milliseconds of {@link HEAT_LOOPS} repetitions of the loop of multiply-adds, at the best clock seen. */
  #fastestLoop = Infinity;

  constructor(device: GPUDevice) {
    this.device = device;
    this.#kernels = new SigmoidAttentionKernels(device);
  }

  /** GPU memory that the kernels hold for themselves. */
  get scratchBytes(): number {
    return this.#kernels.counts.scratchBytes;
  }

  tensor(data: Numbers, shape: BenchShape, length: number): GpuTensor {
    const buffer = this.device.createBuffer({
      size: data.byteLength,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      mappedAtCreation: true,
    });
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer, 0, data.byteLength));
    buffer.unmap();
    return {
      buffer,
      type: shape.type === 'f32' ? 'float' : 'float16',
      dims: [1, length, shape.heads * shape.headSize],
    };
  }

  /**
   * A function that runs `calls` calls in one submission and returns their milliseconds; and the result. The calls take `sets` of K
   * and V in turn.
   */
  prepare(
    shape: BenchShape,
    sets = 1,
  ): {
    readonly run: (calls: number) => Promise<number>;
    readonly runOnGpu: Contender['run'] | null;
    result(): Promise<ArrayBuffer>;
    free(): void;
  } {
    const data = storedData(shape);
    const Q = this.tensor(data.x, shape, shape.queryLength);
    const caches = Array.from({ length: sets }, () => ({
      K: this.tensor(data.k, shape, shape.keyLength),
      V: this.tensor(data.v, shape, shape.keyLength),
    }));
    const Y = this.tensor(data.x, shape, shape.queryLength);
    const encode = (encoder: GPUCommandEncoder, call: number): void =>
      this.#kernels.encode(encoder, { Q, ...caches[call % sets]! }, { Y }, attributesOf(shape));
    const run = async (calls: number): Promise<number> => {
      const start = clock.milliseconds();
      for (let done = 0; done < calls; done += CALLS_PER_SUBMIT) {
        const encoder = this.device.createCommandEncoder();
        for (let call = done; call < Math.min(calls, done + CALLS_PER_SUBMIT); call++) encode(encoder, call);
        this.device.queue.submit([encoder.finish()]);
      }
      await this.device.queue.onSubmittedWorkDone();
      return clock.milliseconds() - start;
    };
    return {
      run,
      runOnGpu: this.#onGpu((encoder, calls) => {
        for (let call = 0; call < calls; call++) encode(encoder, call);
      }),
      result: () => this.read(Y.buffer),
      free: () => [Q, Y, ...caches.flatMap(({ K, V }) => [K, V])].forEach(({ buffer }) => buffer.destroy()),
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

  /**
   * The time of repeated commands on the GPU itself, from timestamps around them: what recording them costs is left out.
   * `null` where the device has no timestamps.
   */
  #onGpu(record: (encoder: GPUCommandEncoder, repetitions: number) => void): Contender['run'] | null {
    if (!this.device.features.has('timestamp-query')) return null;
    const querySet = this.device.createQuerySet({ type: 'timestamp', count: 4 });
    const times = this.device.createBuffer({
      size: 32,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
    return async (repetitions) => {
      const encoder = this.device.createCommandEncoder();
      const stamp = (at: number): void =>
        encoder
          .beginComputePass({
            timestampWrites: { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 },
          })
          .end();
      stamp(0);
      record(encoder, repetitions);
      stamp(2);
      encoder.resolveQuerySet(querySet, 0, 4, times, 0);
      this.device.queue.submit([encoder.finish()]);
      const [, begin, end] = new BigUint64Array(await this.read(times));
      return Number(end! - begin!) / 1e6;
    };
  }

  /** Keeps the GPU busy until it has its clock: idle ones fall to a fifth of it and take a second or so to come back. */
  async heat(): Promise<void> {
    const { run, free } = this.arithmetic();
    const start = performance.now();
    const least = this.#fastestLoop === Infinity ? HEAT_MILLISECONDS : SHORT_HEAT_MILLISECONDS;
    for (let elapsed = 0; elapsed < HEAT_MILLISECONDS; elapsed = performance.now() - start) {
      const milliseconds = await run(HEAT_LOOPS);
      this.#fastestLoop = Math.min(this.#fastestLoop, milliseconds);
      if (elapsed >= least && milliseconds < 1.05 * this.#fastestLoop) break;
    }
    free();
  }

  /**
   * A contender whose repetitions are plain copies that read and write so many bytes together, from and to `sets` of buffers in turn,
   * a pass each. With `waits` a small dispatch follows in the pass that reads what was written, as the sum of split keys does.
   */
  copy(bytes: number, sets: number, waits: boolean): Repeated {
    const buffer = (size: number): GPUBuffer =>
      this.device.createBuffer({ size, usage: GPUBufferUsage.STORAGE });
    const buffers = Array.from({ length: sets }, () => [buffer(bytes / 2), buffer(bytes / 2)] as const);
    const last = buffer(16 * 256);
    const pipeline = this.#pipeline(`@group(0) @binding(0) var<storage, read> source: array<vec4f>;
      @group(0) @binding(1) var<storage, read_write> target_: array<vec4f>;
      @compute @workgroup_size(256) fn repeated(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
        let i = id.x + id.y * n.x * 256u;
        target_[i] = source[i];
      }`);
    const groups = buffers.map(([source, target]) => ({
      copy: this.#bindGroup(pipeline, [source, target]),
      wait: this.#bindGroup(pipeline, [target, last]),
    }));
    const workgroups = bytes / 32 / 256;
    const x = Math.min(workgroups, 32768);
    const record = (encoder: GPUCommandEncoder, repetitions: number): void => {
      for (let repetition = 0; repetition < repetitions; repetition++) {
        const { copy, wait } = groups[repetition % sets]!;
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, copy);
        pass.dispatchWorkgroups(x, Math.ceil(workgroups / x));
        if (waits) {
          pass.setBindGroup(0, wait);
          pass.dispatchWorkgroups(1);
        }
        pass.end();
      }
    };
    return this.#repeated(record, [last, ...buffers.flat()], [4, 44]);
  }

  /** A contender of nothing but multiply-adds, {@link ARITHMETIC_FLOPS} a repetition: it shows the clock of the GPU. */
  arithmetic(): Repeated {
    const sums = this.device.createBuffer({ size: 16 * 1024, usage: GPUBufferUsage.STORAGE });
    const pipeline = this.#pipeline(`@group(0) @binding(0) var<storage, read_write> sums: array<vec4f>;
      @compute @workgroup_size(256) fn repeated(@builtin(global_invocation_id) id: vec3u) {
        var a = vec4f(f32(id.x));
        var b = a + 1.0;
        for (var i = 0u; i < ${ARITHMETIC_STEPS}u; i++) {
          a = fma(a, vec4f(0.999), vec4f(0.25));
          b = fma(b, vec4f(0.998), vec4f(0.5));
        }
        sums[id.x % 1024u] = a + b;
      }`);
    const group = this.#bindGroup(pipeline, [sums]);
    const record = (encoder: GPUCommandEncoder, repetitions: number): void => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      for (let repetition = 0; repetition < repetitions; repetition++)
        pass.dispatchWorkgroups(ARITHMETIC_GROUPS);
      pass.end();
    };
    return this.#repeated(record, [sums], [2, 12]);
  }

  #pipeline(code: string): GPUComputePipeline {
    return this.device.createComputePipeline({
      layout: 'auto',
      compute: { module: this.device.createShaderModule({ code }), entryPoint: 'repeated' },
    });
  }

  #bindGroup(pipeline: GPUComputePipeline, buffers: readonly GPUBuffer[]): GPUBindGroup {
    return this.device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
  }

  /** Repetitions of recorded commands in one submission. */
  #repeated(
    record: (encoder: GPUCommandEncoder, repetitions: number) => void,
    buffers: readonly GPUBuffer[],
    lengths: readonly [number, number],
  ): Repeated {
    return {
      lengths,
      run: async (repetitions) => {
        const start = clock.milliseconds();
        const encoder = this.device.createCommandEncoder();
        record(encoder, repetitions);
        this.device.queue.submit([encoder.finish()]);
        await this.device.queue.onSubmittedWorkDone();
        return clock.milliseconds() - start;
      },
      runOnGpu: this.#onGpu(record),
      free: () => buffers.forEach((own) => own.destroy()),
    };
  }
}
