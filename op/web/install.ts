/** Makes ONNX Runtime Web run converted models with our kernels: wraps its InferenceSession.create. */

import type { InferenceSession } from 'onnxruntime-common';
import { type Model, openModel } from '../../converter/onnx/model.js';
import { type ByteSource, MemorySource } from '../../converter/onnx/source.js';
import { watchPipelines } from './command-recorder.js';
import { deviceOf, givenDevice, loadSplit, pathOf, UnsupportedOnDevice } from './load.js';
import { fetchBytes, type ModelSource, readModelArguments } from './model-argument.js';
import { enqueue } from './queue.js';
import { type OrtModule, sessionOver, type SessionOptions } from './runtime.js';
import { ShortSequenceSession } from './short-sequences.js';
import { isAttention } from './split.js';
import { SplitSession } from './split-session.js';

export interface InstallOptions {
  /**
   * Largest query length times key length that runs as one session with the portable function instead of being cut at the
   * attention nodes: below it, the cuts cost more than the kernels save. 0: always our kernels. When absent, short input
   * shapes that come again are timed both ways, and the faster way is kept for each.
   */
  readonly functionBelow?: number;
}

type Create = (source: ModelSource, ...rest: readonly unknown[]) => Promise<InferenceSession>;

const installed = new WeakMap<object, () => void>();

/**
 * From now on `ort.InferenceSession.create` runs models that hold SigmoidAttention with our kernels wherever the WebGPU
 * provider is asked for; all other models take the stock path. Sessions that exist already are not touched.
 *
 * @returns a function that takes the change back; calling `install` again returns the same
 */
export function install(ort: OrtModule, options: InstallOptions = {}): () => void {
  const factory = ort.InferenceSession as { create: Create };
  const known = installed.get(factory);
  if (known !== undefined) return known;
  const stock = factory.create;
  const wrapped: Create = (source, ...rest) =>
    createSession(ort, stock.bind(factory), options.functionBelow, source, rest);
  factory.create = wrapped;
  const uninstall = (): void => {
    if (factory.create === wrapped) factory.create = stock;
    installed.delete(factory);
  };
  installed.set(factory, uninstall);
  return uninstall;
}

async function createSession(
  ort: OrtModule,
  stock: Create,
  functionBelow: number | undefined,
  source: ModelSource,
  rest: readonly unknown[],
): Promise<InferenceSession> {
  const { bytes, options } = await readModelArguments(source, rest);
  const create = async (model: Uint8Array, sessionOptions: SessionOptions): Promise<InferenceSession> => {
    if (!asksForWebGpu(sessionOptions)) return stock(model, sessionOptions);
    const given = givenDevice(sessionOptions);
    if (given !== undefined) watchPipelines(given);
    const session = await stock(model, sessionOptions);
    if (given === undefined) watchPipelines(await deviceOf(ort, sessionOptions));
    return session;
  };
  const withQueue = async (sessionOptions: SessionOptions): Promise<InferenceSession> =>
    queued(await enqueue(() => create(bytes, sessionOptions)));
  if (!asksForWebGpu(options)) return enqueue(() => create(bytes, options));
  const external = new Map<string, ByteSource>();
  const model = openedModel(bytes, external);
  if (model === undefined || !model.graph.nodes.some(isAttention)) return withQueue(options);
  const obstacle = await obstacleTo(ort, options);
  if (obstacle !== undefined) return withQueue(withoutWebGpu(options, obstacle));
  if (options.enableGraphCapture)
    throw new Error(
      'enableGraphCapture is true; it must be false or absent for a model with SigmoidAttention, which is not one graph',
    );
  const loaded = await withExternalBytes(options, external);
  try {
    const { context, model: split } = await loadSplit(ort, create, model, loaded);
    const session = new SplitSession(ort, context, split);
    return sessionOver(
      ort,
      functionBelow === 0
        ? session
        : new ShortSequenceSession(session, functionBelow, () => enqueue(() => create(bytes, loaded))),
    );
  } catch (error) {
    if (!(error instanceof UnsupportedOnDevice)) throw error;
    return withQueue(withoutWebGpu(loaded, error.message));
  }
}

const nameOf = (provider: InferenceSession.ExecutionProviderConfig): string =>
  typeof provider === 'string' ? provider : provider.name;

function asksForWebGpu({ executionProviders = [] }: SessionOptions): boolean {
  return executionProviders.some((provider) => nameOf(provider) === 'webgpu');
}

/** A model that cannot be read is the runtime's to refuse, in its own words. */
function openedModel(bytes: Uint8Array, external: ReadonlyMap<string, ByteSource>): Model | undefined {
  try {
    return openModel(bytes, (location) => external.get(location.replace(/^\.\//, '')) ?? null);
  } catch {
    return undefined;
  }
}

/** Why the kernels cannot run on this page, if so. */
async function obstacleTo(ort: OrtModule, options: SessionOptions): Promise<string | undefined> {
  if (ort.env.wasm.proxy) return 'ort.env.wasm.proxy keeps GPU buffers out of reach';
  if (givenDevice(options) !== undefined) return undefined;
  const { gpu } = navigator as { gpu?: GPU };
  if (gpu === undefined) return 'this browser has no WebGPU';
  return (await gpu.requestAdapter()) === null ? 'WebGPU offers no adapter' : undefined;
}

let isTold = false;

/** The same options for the WASM provider, which runs the portable function. Says so once. */
function withoutWebGpu(options: SessionOptions, reason: string): SessionOptions {
  if (!isTold) {
    isTold = true;
    console.info(`SigmoidAttention runs as a portable function on WASM: ${reason}.`);
  }
  const others = (options.executionProviders ?? []).filter((provider) => nameOf(provider) !== 'webgpu');
  const onWasm: SessionOptions = { ...options, executionProviders: others.length > 0 ? others : ['wasm'] };
  delete onWasm.preferredOutputLocation;
  delete onWasm.enableGraphCapture;
  return onWasm;
}

/** A stock session whose runs take their turn; overlapping ones would freeze the page. */
function queued(session: InferenceSession): InferenceSession {
  const run = session.run.bind(session) as (...args: unknown[]) => Promise<InferenceSession.ReturnType>;
  const release = session.release.bind(session);
  session.run = (...args: unknown[]) => enqueue(() => run(...args));
  session.release = () => enqueue(release);
  return session;
}

/** Fetches external data once, for all pieces and for the constants that the kernels read. */
async function withExternalBytes(
  options: SessionOptions,
  into: Map<string, ByteSource>,
): Promise<SessionOptions> {
  if (options.externalData === undefined) return options;
  const externalData = await Promise.all(
    options.externalData.map(async (file) => {
      const path = pathOf(file);
      const data = await externalBytes(typeof file === 'string' ? file : file.data);
      into.set(path.replace(/^\.\//, ''), new MemorySource(data));
      return { path, data };
    }),
  );
  return { ...options, externalData };
}

async function externalBytes(data: unknown): Promise<Uint8Array> {
  if (typeof data === 'string') return fetchBytes(data);
  if (data instanceof Blob) return new Uint8Array(await data.arrayBuffer());
  return data instanceof Uint8Array ? data : new Uint8Array(data as ArrayBuffer);
}
