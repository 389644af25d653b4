/* Compiles HLSL samples with FXC, Direct3D's compiler of shader model 5, which is a DLL.
   fxc.exe D3DCOMPILER_DLL SECONDS FILE...
   Prints a line for each file that fails or takes longer than SECONDS, and one with the numbers. Fails too if the
   compiler takes what it has to refuse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

/* ID3DBlob by its table of methods. */
typedef struct Blob Blob;
struct Blob {
    struct {
        HRESULT(WINAPI *query)(Blob *, const void *, void **);
        ULONG(WINAPI *add_ref)(Blob *);
        ULONG(WINAPI *release)(Blob *);
        void *(WINAPI *pointer)(Blob *);
        SIZE_T(WINAPI *size)(Blob *);
    } *table;
};
typedef HRESULT(WINAPI *Compile)(const void *, SIZE_T, const char *, const void *, void *, const char *, const char *,
                                 UINT, UINT, Blob **, Blob **);

/* Seconds that this process has computed: those of the clock would count what else the machine does. */
static double seconds(void) {
    FILETIME begun, ended, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &begun, &ended, &kernel, &user);
    ULARGE_INTEGER k = {{kernel.dwLowDateTime, kernel.dwHighDateTime}};
    ULARGE_INTEGER u = {{user.dwLowDateTime, user.dwHighDateTime}};
    return (k.QuadPart + u.QuadPart) * 1e-7;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    HMODULE dll = LoadLibraryA(argv[1]);
    Compile compile = dll ? (Compile)(void *)GetProcAddress(dll, "D3DCompile") : NULL;
    if (!compile) {
        printf("%s: no D3DCompile, error %lu\n", argv[1], GetLastError());
        return 2;
    }
    const char *wrong = "groupshared float a[9000]; RWByteAddressBuffer o : register(u0);"
                        "[numthreads(8, 1, 1)] void main(uint3 i : SV_GroupThreadID) { a[i.x * 1000] = i.x;"
                        "GroupMemoryBarrierWithGroupSync(); o.Store(i.x * 4, asuint(a[o.Load(i.x)])); }";
    Blob *none = NULL;
    if (compile(wrong, strlen(wrong), "wrong", NULL, NULL, "main", "cs_5_1", 1 << 11, 0, &none, NULL) >= 0) {
        printf("36,000 bytes of group memory were not refused\n");
        return 1;
    }
    double limit = atof(argv[2]), slowest = 0, total = 0;
    const char *slow = "";
    int failed = 0, late = 0;
    for (int i = 3; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) {
            printf("%s: cannot be read\n", argv[i]);
            return 2;
        }
        fseek(f, 0, SEEK_END);
        long size = ftell(f);
        rewind(f);
        char *text = malloc(size);
        if (!text || fread(text, 1, size, f) != (size_t)size) return 2;
        fclose(f);
        double begin = seconds();
        Blob *code = NULL, *errors = NULL;
        /* 1 << 11 is D3DCOMPILE_ENABLE_STRICTNESS. */
        HRESULT result = compile(text, size, argv[i], NULL, NULL, "main", "cs_5_1", 1 << 11, 0, &code, &errors);
        double took = seconds() - begin;
        total += took;
        if (took > slowest) slowest = took, slow = argv[i];
        if (result < 0) {
            failed++;
            const char *message = errors ? errors->table->pointer(errors) : "no message";
            /* Warnings come first. */
            const char *error = strstr(message, "error X");
            printf("%s: %.200s\n", argv[i], error ? error : message);
        } else if (took > limit) {
            late++;
            printf("%s: took %.1f s, more than %.1f\n", argv[i], took, limit);
        }
        if (code) code->table->release(code);
        if (errors) errors->table->release(errors);
        free(text);
        fflush(stdout);
    }
    printf("FXC: %d of %d samples pass, %d fail, %d too slow, slowest %s in %.2f s, all in %.0f s\n",
           argc - 3 - failed - late, argc - 3, failed, late, slow, slowest, total);
    return failed || late ? 1 : 0;
}
