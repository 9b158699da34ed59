/** The InferenceSessionHandler behind sessions of models with SigmoidAttention nodes. */

import type {
  InferenceSession,
  InferenceSessionHandler,
  OnnxValue,
  SessionHandler,
} from 'onnxruntime-common';
import type { NativeSession, NativeValueInfo } from './native-addon.js';
import { runSettings } from './run-options.js';
import { fromNative, TYPE_NAMES, toNative } from './tensors.js';

/**
 * Runs go to Node's thread pool: the event loop goes on meanwhile, and runs of one session may overlap. Only runs known to
 * take less than a change of threads stay on this one.
 */
export class SigmoidSessionHandler implements InferenceSessionHandler {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly #session: NativeSession;

  constructor(session: NativeSession) {
    this.#session = session;
    const { inputs, outputs } = session;
    this.inputMetadata = inputs.map(metadata);
    this.outputMetadata = outputs.map(metadata);
    this.inputNames = inputs.map(({ name }) => name);
    this.outputNames = outputs.map(({ name }) => name);
  }

  async run(
    feeds: SessionHandler.FeedsType,
    fetches: SessionHandler.FetchesType,
    options: InferenceSession.RunOptions,
  ): Promise<SessionHandler.ReturnType> {
    const inputNames = this.inputNames.filter((name) => name in feeds);
    const outputNames = this.outputNames.filter((name) => name in fetches);
    const given = outputNames.map((name) => fetches[name] ?? null);
    const results = await this.#session.run(
      inputNames,
      inputNames.map((name) => toNative(feeds[name]!)),
      outputNames,
      // ONNX Runtime owns the memory of strings: they come back as a new tensor.
      given.map((value) => (value === null || value.type === 'string' ? null : toNative(value))),
      runSettings(options),
    );
    // Quick runs happen on this thread: whatever awaits one after the other still lets the event loop turn.
    await new Promise(setImmediate);
    const named: Record<string, OnnxValue> = {};
    outputNames.forEach((name, i) => {
      const result = results[i];
      // onnxruntime-common turns what is not a Tensor yet into one.
      if (result) named[name] = fromNative(result) as OnnxValue;
      else if (given[i]) named[name] = given[i];
    });
    return named;
  }

  startProfiling(): void {
    // As in stock onnxruntime-node: the session option enableProfiling starts it.
  }

  endProfiling(): void {
    this.#session.endProfiling();
  }

  async dispose(): Promise<void> {
    this.#session.dispose();
  }
}

function metadata(info: NativeValueInfo): InferenceSession.ValueMetadata {
  const { name } = info;
  if (!info.isTensor) return { name, isTensor: false };
  const type = TYPE_NAMES[info.type];
  if (type === undefined) throw new Error(`Unsupported data type: ${info.type}`);
  const shape = info.shape.map((dim, i) => (dim === -1 ? info.symbolicDimensions[i]! : dim));
  return { name, isTensor: true, type, shape } as InferenceSession.TensorValueMetadata;
}
