/** The file is not a readable ONNX model; `offset` is the byte where reading failed. */
export class ModelFormatError extends Error {
  override readonly name = 'ModelFormatError';

  constructor(
    message: string,
    readonly offset: number,
  ) {
    super(`invalid ONNX model at byte ${offset}: ${message}`);
  }
}
