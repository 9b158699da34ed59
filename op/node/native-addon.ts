/** The Node addon's interface (op/node/addon/addon.cc) and loading it. */

import { createRequire } from 'node:module';
import { nativeFiles } from './package-root.js';

/** A tensor as the addon takes and gives it; `type` is a number of TensorProto.DataType. */
export interface NativeTensor {
  readonly type: number;
  readonly dims: readonly number[];
  readonly data: ArrayBufferView | readonly string[];
}

/** A model input or output as ONNX Runtime describes it; -1 in `shape` stands for a symbolic dimension. */
export interface NativeValueInfo {
  readonly name: string;
  readonly isTensor: boolean;
  readonly type: number;
  readonly shape: readonly number[];
  readonly symbolicDimensions: readonly string[];
}

/** One option: its name and values, as op/node/addon/session_options.cc reads them. */
export type Setting = readonly [name: string, ...values: unknown[]];

export interface NativeSession {
  readonly inputs: readonly NativeValueInfo[];
  readonly outputs: readonly NativeValueInfo[];
  /** Resolves to one entry for each output: null where the memory of `outputs[i]` was filled. */
  run(
    inputNames: readonly string[],
    inputs: readonly NativeTensor[],
    outputNames: readonly string[],
    outputs: readonly (NativeTensor | null)[],
    settings: readonly Setting[],
  ): Promise<(NativeTensor | null)[]>;
  endProfiling(): string;
  dispose(): void;
}

export interface NativeAddon {
  /** Must come first: binds the addon to the ONNX Runtime that is loaded from this file. */
  findRuntime(ortLibrary: string): void;
  createSession(
    model: string | Uint8Array,
    operatorLibrary: string,
    settings: readonly Setting[],
  ): Promise<NativeSession>;
}

/** Throws an Error that says what to do when the addon has not been built or does not load. */
export function loadAddon(): NativeAddon {
  const { addon } = nativeFiles();
  return createRequire(import.meta.url)(addon) as NativeAddon;
}
