// Untested. A converted model in C# (package Microsoft.ML.OnnxRuntime 1.24 or newer): dotnet run MODEL LIBRARY
// LIBRARY is what `npx sigmoid-attention library` prints.
using Microsoft.ML.OnnxRuntime;

using var options = new SessionOptions();
options.RegisterCustomOpLibraryV2(args[1], out _);
using var session = new InferenceSession(args[0], options);

foreach (var (name, input) in session.InputMetadata)
    Console.WriteLine($"{name}: {input.ElementType} [{string.Join(", ", input.Dimensions)}]");
