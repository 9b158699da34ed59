/** `export-triton`: a model repository for Triton Inference Server. */
import { libraryPath } from '../../op/node/package-root.js';
import { ModelFormatError } from '../onnx/error.js';
import { exportTriton } from '../triton/export.js';
import { EXIT, Failure, fileErrorText, modelFailure } from './failure.js';

export interface TritonOptions {
  readonly output: string;
  readonly name?: string;
  readonly device: 'cpu' | 'cuda';
  readonly instances: number;
  readonly maxBatchSize: number;
  readonly queueDelay: number;
  readonly servedFrom: string;
  readonly json?: boolean;
}

export function tritonCommand(file: string, { output, json, ...options }: TritonOptions): void {
  try {
    const exported = exportTriton(file, { ...options, repository: output, library: libraryPath() });
    console.log(json ? JSON.stringify(exported) : `Wrote ${exported.folder} (${exported.files.join(', ')}).`);
  } catch (error) {
    if (error instanceof ModelFormatError || (error as NodeJS.ErrnoException).path === file) {
      throw modelFailure(file, error);
    }
    throw new Failure(`model ${file}: ${fileErrorText(error)}`, EXIT.usage, { cause: error });
  }
}
