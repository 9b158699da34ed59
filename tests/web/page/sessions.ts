/** Scenarios of converted models as sessions. Each returns what the test looks at; models are made in the page. */

import * as ort from 'onnxruntime-web/webgpu';
import { gpuResources, install } from '../../../op/web/index.js';
import { generator, layeredModel, type LayeredModel, TABLE_ROWS } from './models.js';

type Tensors = Record<string, ort.Tensor>;

const SMALL: LayeredModel = { layers: 2, heads: 2, headSize: 16 };
const ONE_LAYER: LayeredModel = { layers: 1, heads: 2, headSize: 16 };

function feedsFor(model: LayeredModel, length: number, seed = 1): Tensors {
  const { heads, headSize, masked, embedded, shifted } = model;
  const random = generator(seed);
  const width = heads * headSize;
  const x = Float32Array.from({ length: length * width }, () => 2 * random() - 1);
  const ids = BigInt64Array.from({ length }, () => BigInt(Math.floor(random() * TABLE_ROWS)));
  const feeds: Tensors = embedded
    ? { ids: new ort.Tensor('int64', ids, [1, length]) }
    : { x: new ort.Tensor('float32', x, [1, length, width]) };
  if (shifted) feeds['offset'] = new ort.Tensor('int64', BigInt64Array.of(BigInt(seed % 3)), [1]);
  if (masked)
    feeds['mask'] = new ort.Tensor(
      'bool',
      Uint8Array.from({ length: length * length }, () => (random() < 0.7 ? 1 : 0)),
      [1, 1, length, length],
    );
  return feeds;
}

/** What WASM with the portable function returns; the runtime's own path, without our part in it. */
async function expected(model: Uint8Array, feeds: Tensors): Promise<Tensors> {
  const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] });
  const results = await session.run(feeds);
  await session.release();
  return results as Tensors;
}

function largestDifference(found: ort.Tensor, wanted: ort.Tensor): number {
  if (found.dims.join() !== wanted.dims.join())
    throw new Error(`shape [${found.dims}], must be [${wanted.dims}]`);
  const [a, b] = [found.data as Float32Array, wanted.data as Float32Array];
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

function create(
  bytes: Uint8Array,
  options: ort.InferenceSession.SessionOptions = {},
): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(bytes, { executionProviders: ['webgpu'], ...options });
}

/** Largest differences of all outputs from WASM, for a model and a length. */
export async function differences({
  model,
  length,
}: {
  model: LayeredModel;
  length: number;
}): Promise<Record<string, number>> {
  const restore = install(ort, { functionBelow: 0 });
  const { bytes } = layeredModel(model);
  const feeds = feedsFor(model, length);
  const session = await create(bytes);
  const results = (await session.run(feeds)) as Tensors;
  const wanted = await expected(bytes, feeds);
  await session.release();
  restore();
  return Object.fromEntries(
    Object.entries(wanted).map(([name, tensor]) => [name, largestDifference(results[name]!, tensor)]),
  );
}

/** Runs with input and output in GPU buffers of the runtime's device, first without and then with a given buffer, each several times. */
export async function gpuBuffers({
  runs,
  copyable,
}: {
  runs: number;
  copyable: boolean;
}): Promise<{ locations: string[]; differences: number[] }> {
  const restore = install(ort, { functionBelow: 0 });
  const { bytes } = layeredModel({ ...SMALL, presents: true });
  const feeds = feedsFor(SMALL, 24);
  const wanted = await expected(bytes, feeds);
  const session = await create(bytes, {
    preferredOutputLocation: { y: 'gpu-buffer', layer1_present_key: 'gpu-buffer' },
  });
  const device = (await ort.env.webgpu.device) as GPUDevice;
  const data = feeds['x']!.data as Float32Array<ArrayBuffer>;
  const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const onGpu = (usage: number): GPUBuffer =>
    device.createBuffer({
      size: data.byteLength,
      usage: STORAGE | (copyable ? COPY_SRC | COPY_DST : usage),
    });
  const input = onGpu(COPY_DST);
  device.queue.writeBuffer(input, 0, data);
  const x = ort.Tensor.fromGpuBuffer(input, { dataType: 'float32', dims: feeds['x']!.dims });
  for (let run = 1; run < runs; run++)
    for (const tensor of Object.values((await session.run({ x })) as Tensors)) tensor.dispose();
  const first = (await session.run({ x })) as Tensors;
  const target = ort.Tensor.fromGpuBuffer(onGpu(COPY_SRC), {
    dataType: 'float32',
    dims: feeds['x']!.dims,
    download: async () => {
      const staging = device.createBuffer({
        size: data.byteLength,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      });
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(target.gpuBuffer as unknown as GPUBuffer, 0, staging, 0, data.byteLength);
      device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      return new Float32Array(staging.getMappedRange().slice(0));
    },
  });
  for (let run = 1; run < runs; run++) await session.run({ x }, { y: target });
  const second = (await session.run({ x }, { y: target })) as Tensors;
  const locations = [
    first['y']!,
    first['layer1_present_key']!,
    first['layer0_present_key']!,
    second['y']!,
  ].map(({ location }) => location);
  const differences: number[] = [];
  for (const [name, tensor] of [...Object.entries(first), ...Object.entries(second)]) {
    const found = new ort.Tensor('float32', (await tensor.getData()) as Float32Array, tensor.dims);
    differences.push(largestDifference(found, wanted[name]!));
  }
  for (const tensor of Object.values(first)) tensor.dispose();
  await session.release();
  restore();
  return { locations, differences };
}

/** Names and types of inputs and outputs, ours and those of the runtime's own session on WASM. */
export async function metadata(): Promise<Record<'ours' | 'stock', unknown>> {
  const { bytes } = layeredModel({ ...SMALL, masked: true, presents: true });
  const describe = ({
    inputNames,
    outputNames,
    inputMetadata,
    outputMetadata,
  }: ort.InferenceSession): unknown => ({
    inputNames,
    outputNames,
    inputMetadata,
    outputMetadata,
  });
  const stock = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] });
  const restore = install(ort, { functionBelow: 0 });
  const session = await create(bytes);
  const result = { ours: describe(session), stock: describe(stock) };
  await session.release();
  await stock.release();
  restore();
  return result;
}

/** Models by URL, Blob, ArrayBuffer and part of a buffer; external data as bytes and by URL. */
export async function sources(): Promise<Record<string, number>> {
  const restore = install(ort, { functionBelow: 0 });
  const inside = layeredModel(ONE_LAYER);
  const outside = layeredModel({ ...ONE_LAYER, external: 'weights.bin' });
  const feeds = feedsFor(SMALL, 9);
  const wanted = (await expected(inside.bytes, feeds))['y']!;
  const gpu = { executionProviders: ['webgpu'] };
  const urlOf = (bytes: Uint8Array): string =>
    URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>]));
  const padded = new Uint8Array(inside.bytes.length + 8);
  padded.set(inside.bytes, 5);
  const any = ort.InferenceSession.create as (...args: unknown[]) => Promise<ort.InferenceSession>;
  const ways: Record<string, () => Promise<ort.InferenceSession>> = {
    bytes: () => any(inside.bytes, gpu),
    url: () => any(urlOf(inside.bytes), gpu),
    blob: () => any(new Blob([inside.bytes as Uint8Array<ArrayBuffer>]), gpu),
    buffer: () => any(inside.bytes.slice().buffer, gpu),
    part: () => any(padded.buffer, 5, inside.bytes.length, gpu),
    externalBytes: () =>
      any(outside.bytes, { ...gpu, externalData: [{ path: './weights.bin', data: outside.data }] }),
    externalUrl: () =>
      any(outside.bytes, { ...gpu, externalData: [{ path: 'weights.bin', data: urlOf(outside.data) }] }),
  };
  const found: Record<string, number> = {};
  for (const [name, make] of Object.entries(ways)) {
    const session = await make();
    found[name] = largestDifference((await session.run(feeds))['y']!, wanted);
    await session.release();
  }
  restore();
  return found;
}

/** Calls that overlap: several of one session, of two sessions, with a release and a creation in between. */
export async function concurrency(): Promise<number[]> {
  const restore = install(ort, { functionBelow: 0 });
  const { bytes } = layeredModel(SMALL);
  const [a, b] = await Promise.all([create(bytes), create(bytes)]);
  const lengths = [5, 12, 30, 5, 17, 30];
  const results = await Promise.all(
    lengths.map(async (length, index) => {
      const feeds = feedsFor(SMALL, length, index);
      return { feeds, y: ((await (index % 2 === 0 ? a : b).run(feeds)) as Tensors)['y']! };
    }),
  );
  const [c] = await Promise.all([create(bytes), a.release(), b.run(feedsFor(SMALL, 4))]);
  await Promise.all([b.release(), c.release()]);
  restore();
  const found: number[] = [];
  for (const { feeds, y } of results) found.push(largestDifference(y, (await expected(bytes, feeds))['y']!));
  return found;
}

/** How often sessions of the runtime's class run: ours once for each call, and once for each piece that the runtime runs. */
function countRuns(): { take: () => number; stop: () => void } {
  const { prototype } = ort.InferenceSession as unknown as {
    prototype: { run: (...args: unknown[]) => Promise<unknown> };
  };
  const { run } = prototype;
  let runs = 0;
  prototype.run = function (...args) {
    runs++;
    return run.apply(this, args);
  };
  return {
    take: () => {
      const taken = runs;
      runs = 0;
      return taken;
    },
    stop: () => (prototype.run = run),
  };
}

/**
 * Runs of one length on changing data, with another model of the runtime's own on the same device in between, then some at once,
 * then another length and back, and with a given output: how often the runtime ran a piece each time, and the differences.
 */
export async function repetition({ model, seeds }: { model: LayeredModel; seeds: number[] }): Promise<{
  pieces: number[];
  atOnce: number;
  differences: number[];
  replays: number;
}> {
  const restore = install(ort, { functionBelow: 0 });
  const { bytes } = layeredModel(model);
  const session = await create(bytes);
  const other = await create(layeredModel({ ...model, layers: 1, heads: 1 }).bytes);
  restore();
  const stock = await create(bytes);
  const runs: { feeds: Tensors; results: Tensors }[] = [];
  const counter = countRuns();
  const run = async (length: number, seed: number): Promise<void> => {
    const feeds = feedsFor(model, length, seed);
    runs.push({ feeds, results: (await session.run(feeds)) as Tensors });
  };
  const pieces: number[] = [];
  for (const seed of seeds) {
    await run(11, seed);
    pieces.push(counter.take() - 1);
    await stock.run(feedsFor(model, 11, seed + 1));
    await other.run(feedsFor({ ...model, heads: 1 }, 11, seed + 1));
    counter.take();
  }
  await Promise.all(seeds.map((seed) => run(11, seed + 3)));
  const atOnce = counter.take() - seeds.length;
  await run(19, 1);
  await run(11, 1);
  counter.stop();
  const { replays } = gpuResources();
  for (const seed of seeds) {
    const feeds = feedsFor(model, 11, seed);
    const width = model.heads * model.headSize;
    const y = new ort.Tensor('float32', new Float32Array(11 * width), [1, 11, width]);
    const results = (await session.run(feeds, { y })) as Tensors;
    if (results['y'] !== y) throw new Error('the given output is not the one returned');
    runs.push({ feeds, results: { y: new ort.Tensor('float32', y.data.slice(), y.dims) } });
  }
  const differences: number[] = [];
  for (const { feeds, results } of runs) {
    const wanted = await expected(bytes, feeds);
    for (const [name, tensor] of Object.entries(results))
      differences.push(largestDifference(tensor, wanted[name]!));
  }
  for (const each of [session, other, stock]) await each.release();
  return { pieces, atOnce, differences, replays };
}

/** GPU buffers that are alive on the page's device, counted at the device itself. */
function countBuffers(device: GPUDevice): { alive: () => number; stop: () => void } {
  let alive = 0;
  const { createBuffer } = device;
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer.call(device, descriptor);
    alive++;
    const { destroy } = buffer;
    let isDestroyed = false;
    buffer.destroy = () => {
      if (!isDestroyed) alive--;
      isDestroyed = true;
      return destroy.call(buffer);
    };
    return buffer;
  };
  return { alive: () => alive, stop: () => (device.createBuffer = createBuffer) };
}

/** Buffers after a few and after many more runs of changing lengths, and what is held after the release. */
export async function leaks({ runs }: { runs: number }): Promise<{
  ours: number[];
  onDevice: number[];
  after: ReturnType<typeof gpuResources>;
}> {
  const restore = install(ort, { functionBelow: 0 });
  const { bytes } = layeredModel({ layers: 1, heads: 1, headSize: 16, presents: true });
  const session = await create(bytes, { preferredOutputLocation: { layer0_present_key: 'gpu-buffer' } });
  const counter = countBuffers((await ort.env.webgpu.device) as GPUDevice);
  const lengths = [1, 7, 16];
  const ours: number[] = [];
  const onDevice: number[] = [];
  for (let run = 0; run < runs; run++) {
    const results = (await session.run(
      feedsFor({ layers: 1, heads: 1, headSize: 16 }, lengths[run % 3]!),
    )) as Tensors;
    results['layer0_present_key']!.dispose();
    if (run + 1 === Math.ceil(runs / 10) || run + 1 === runs) {
      ours.push(gpuResources().buffers);
      onDevice.push(counter.alive());
    }
  }
  await session.release();
  counter.stop();
  restore();
  return { ours, onDevice, after: gpuResources() };
}

/** Messages of what must be refused, each as a rejected promise. */
export async function refusals(): Promise<Record<string, string>> {
  const restore = install(ort, { functionBelow: 0 });
  const { bytes } = layeredModel(SMALL);
  const messages: Record<string, string> = {};
  const attempt = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    let promise: Promise<unknown>;
    try {
      promise = work();
    } catch (error) {
      messages[name] = `thrown at once: ${String(error)}`;
      return;
    }
    messages[name] = await promise.then(
      () => 'not refused',
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
  };
  await attempt('graphCapture', () => create(bytes, { enableGraphCapture: true }));
  await attempt('missingFile', () =>
    ort.InferenceSession.create('/no-such-model.onnx', { executionProviders: ['webgpu'] }),
  );
  await attempt('noModel', () => create(Uint8Array.from([1, 2, 3])));
  const session = await create(bytes);
  await attempt('missingFeed', () => session.run({}));
  await attempt('wrongOutput', () => session.run(feedsFor(SMALL, 3), ['z']));
  await attempt('afterFailure', () => session.run(feedsFor(SMALL, 3)));
  await session.release();
  await attempt('afterRelease', () => session.run(feedsFor(SMALL, 3)));
  restore();
  return messages;
}

/** The same session with lengths on both sides of the rule; with run options, every run is left to the runtime. */
export async function shortSequences(rule: {
  functionBelow?: number;
  lengths: number[];
  options?: ort.InferenceSession.RunOptions;
}): Promise<number[]> {
  const { functionBelow, lengths, options = {} } = rule;
  const restore = install(ort, functionBelow === undefined ? {} : { functionBelow });
  const { bytes } = layeredModel(ONE_LAYER);
  const session = await create(bytes);
  const found: number[] = [];
  for (const length of lengths) {
    const feeds = feedsFor(SMALL, length);
    found.push(
      largestDifference((await session.run(feeds, options))['y']!, (await expected(bytes, feeds))['y']!),
    );
  }
  await session.release();
  restore();
  return found;
}

/** A browser without WebGPU has no `navigator.gpu`: then models run on WASM. The test reads the console. */
export async function withoutWebGpu(): Promise<number> {
  Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined });
  const restore = install(ort);
  const { bytes } = layeredModel(SMALL);
  const feeds = feedsFor(SMALL, 12);
  const sessions = [await create(bytes), await create(bytes)];
  const y = ((await sessions[1]!.run(feeds)) as Tensors)['y']!;
  for (const session of sessions) await session.release();
  restore();
  return largestDifference(y, (await expected(bytes, feeds))['y']!);
}

/** Loses the device while a session exists, and runs it. */
export async function deviceLoss({ runs }: { runs: number }): Promise<string> {
  const restore = install(ort, { functionBelow: 0 });
  const { bytes } = layeredModel(SMALL);
  const session = await create(bytes);
  for (let run = 0; run < runs; run++) await session.run(feedsFor(SMALL, 4));
  const device = (await ort.env.webgpu.device) as GPUDevice;
  device.destroy();
  await device.lost;
  const message = await session.run(feedsFor(SMALL, 4)).then(
    () => 'not refused',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
  restore();
  return message;
}
