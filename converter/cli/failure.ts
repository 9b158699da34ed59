/** Failures that the command line reports as one sentence, and the exit codes that go with them. */
import { ModelFormatError } from '../onnx/error.js';

export const EXIT = {
  done: 0,
  usage: 1,
  invalidModel: 2,
  nothingToConvert: 3,
  verificationFailed: 4,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export class Failure extends Error {
  override readonly name = 'Failure';

  constructor(
    message: string,
    readonly exitCode: ExitCode,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

const FILE_ERRORS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder',
  EISDIR: 'is a folder, a file is needed',
  ENOTDIR: 'a part of the path is not a folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space is left on the device',
  EMFILE: 'too many files are open',
};

/** What went wrong with a file, in a few words. */
export function fileErrorText(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code !== undefined && FILE_ERRORS[code]) || message;
}

/** A failure to read a model as one sentence. */
export function modelFailure(path: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const text = error instanceof ModelFormatError ? error.message : fileErrorText(error);
  return new Failure(`model ${path}: ${text}`, EXIT.invalidModel, { cause: error });
}

/** ONNX Runtime's messages run over many lines and carry source positions; the first sentence says what happened. */
export function runtimeErrorText(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text
    .split('\n')[0]!
    .replace(/^Error: /, '')
    .replace(/\/[^ ]*\/onnxruntime\/[^ ]*:\d+ /g, '')
    .trim();
}
