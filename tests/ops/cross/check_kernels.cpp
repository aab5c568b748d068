// Holds every instruction set of a build to the plain one, kernel by kernel, without Python: for machines that this project
// is compiled for but not developed on. tests/ops/test_arm_emulator.py builds it for ARM and runs it in an emulator.
//
//     usage: check_kernels NAME     e.g. neon; prints one line per kernel, exits with 1 on a difference
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/kernels.h"

using namespace intaglio;

namespace {

std::mt19937 generator(7);
int failures = 0;

std::vector<float> normal(size_t count) {
    std::normal_distribution<float> distribution;
    std::vector<float> values(count);
    for (float& value : values) value = distribution(generator);
    return values;
}

template <class T>
std::vector<T> whole(size_t count, int low, int high) {
    std::uniform_int_distribution<int> distribution(low, high);
    std::vector<T> values(count);
    for (T& value : values) value = (T)distribution(generator);
    return values;
}

// Half-precision bits of random scales around 1/32, of either sign.
std::vector<uint16_t> halves(size_t count) {
    std::vector<uint16_t> bits = whole<uint16_t>(count, 0, 0x3ff);
    for (size_t i = 0; i < count; i++) bits[i] |= 0x2800 | (i % 3 == 0 ? 0x8000 : 0);
    return bits;
}

void report(const char* what, const std::vector<float>& ours, const std::vector<float>& theirs, float tolerance) {
    float largest = 0, difference = 0;
    for (size_t i = 0; i < ours.size(); i++) {
        largest = std::fmax(largest, std::fabs(theirs[i]));
        const float here = std::fabs(ours[i] - theirs[i]);
        if (!(here <= difference)) difference = here;  // a NaN stays
    }
    const bool good = difference <= tolerance * std::fmax(1.0f, largest);
    failures += !good;
    std::printf("%-28s %s  differs by %.2g of %.3g\n", what, good ? "ok " : "BAD", difference, largest);
}

struct Quantized {
    std::vector<int8_t> values;
    std::vector<float> scales;
    std::vector<int32_t> sums;
    QuantizedRows view() { return {values.data(), scales.data(), sums.data()}; }
};

Quantized quantized(const Kernels& kernels, const std::vector<float>& x, int64_t rows, int64_t in) {
    const int64_t groups = group_count(in);
    Quantized q{std::vector<int8_t>(rows * groups * kGroup), std::vector<float>(rows * groups),
                std::vector<int32_t>(rows * groups)};
    kernels.quantize_rows(x.data(), in, q.view(), 0, rows);
    return q;
}

void check_quantization(const Kernels& ours, const Kernels& plain) {
    std::vector<float> x = normal(5 * 70);
    x[3] = std::numeric_limits<float>::quiet_NaN(), x[80] = 1e30f, x[150] = 1e-40f;
    Quantized a = quantized(ours, x, 5, 70), b = quantized(plain, x, 5, 70);
    const bool good = a.values == b.values && a.sums == b.sums &&
                      !std::memcmp(a.scales.data(), b.scales.data(), a.scales.size() * sizeof(float));
    failures += !good;
    std::printf("%-28s %s  to the bit\n", "int8 activations", good ? "ok " : "BAD");
}

void check_products(const Kernels& ours, const Kernels& plain, Format format, bool has_minima, const char* name) {
    for (const int64_t rows : {1, 2, 3, 7, 15}) {
        const int64_t out = 37, in = 133, tiles = 3, groups = group_count(in);
        const std::vector<float> x = normal(rows * in);
        std::vector<uint8_t> bytes = whole<uint8_t>(tiles * groups * 512, 0, 255);
        std::vector<float> floats = normal(out * in);
        if (format == Format::f32) bytes.assign((uint8_t*)floats.data(), (uint8_t*)(floats.data() + floats.size()));
        if (format == Format::bf16) {
            bytes.resize(out * in * 2);
            for (int64_t i = 0; i < out * in; i++) std::memcpy(&bytes[2 * i], (uint8_t*)&floats[i] + 2, 2);
        }
        const std::vector<uint16_t> scales = halves(tiles * groups * kTile), minima = halves(tiles * groups * kTile);
        const Matrix w{format, out, in, bytes.data(), scales.data(), has_minima ? minima.data() : nullptr};
        Quantized q = quantized(plain, x, rows, in);
        std::vector<float> a(rows * out), b(rows * out), alone(rows * out);
        ours.matmul(w, x.data(), q.view(), rows, a.data(), out, 0, tiles);
        plain.matmul(w, x.data(), q.view(), rows, b.data(), out, 0, tiles);
        report(name, a, b, 1e-5f);
        for (int64_t row = 0; row < rows; row++) {
            const QuantizedRows one{q.values.data() + row * groups * kGroup, q.scales.data() + row * groups,
                                    q.sums.data() + row * groups};
            ours.matmul(w, x.data() + row * in, one, 1, alone.data() + row * out, out, 0, tiles);
        }
        if (std::memcmp(a.data(), alone.data(), a.size() * sizeof(float))) {
            failures++;
            std::printf("%-28s BAD  a row among %d differs from itself alone\n", name, (int)rows);
        }
        const std::vector<int32_t> ids = {0, 36, 16};
        std::vector<float> rows_a(3 * in), rows_b(3 * in);
        ours.embed(w, ids.data(), 2.5f, rows_a.data(), 0, 3);
        plain.embed(w, ids.data(), 2.5f, rows_b.data(), 0, 3);
        report("  its embedding", rows_a, rows_b, 1e-6f);
    }
}

void check_rows(const Kernels& ours, const Kernels& plain) {
    const int64_t rows = 5, width = 133;
    const std::vector<float> x = normal(rows * width), y = normal(rows * width), weight = normal(width);
    std::vector<float> a(rows * width), b(rows * width);
    auto both = [&](const char* what, auto run) {
        run(ours, a), run(plain, b);
        report(what, a, b, 2e-6f);
    };
    both("rms_norm", [&](const Kernels& k, std::vector<float>& out) {
        k.rms_norm(x.data(), weight.data(), y.data(), 1e-6f, width, out.data(), 0, rows);
    });
    both("gelu_gate",
         [&](const Kernels& k, std::vector<float>& out) { k.gelu_gate(x.data(), y.data(), out.data(), 0, rows * width); });
    both("softcap", [&](const Kernels& k, std::vector<float>& out) {
        out = x;
        k.softcap(out.data(), 1.5f, 0, rows * width);
    });
    // Five ranks of 133 numbers fill nine sixteens each; what fills them up is zeros, but the kernels read whatever is there.
    const std::vector<uint16_t> small = halves(5 * lora_width(width));
    const std::vector<float> large = normal(5 * lora_width(width));
    const float scales[5] = {0.25f, -1.5f, 0.0f, 3e-4f, 7.0f};
    for (const int64_t size : {4, 2, 1}) {
        const void* values = size == 4 ? (const void*)large.data() : small.data();
        const LoraPair part{values, values, 5, width, width, scales, size, nullptr, nullptr};
        both(size == 4   ? "lora_shrink"
             : size == 2 ? "lora_shrink, half"
                         : "lora_shrink, int8",
             [&](const Kernels& k, std::vector<float>& out) { k.lora_shrink(x.data(), rows, part, out.data(), 0, 2); });
        both(size == 4   ? "lora_expand"
             : size == 2 ? "lora_expand, half"
                         : "lora_expand, int8",
             [&](const Kernels& k, std::vector<float>& out) {
                 out = y;
                 k.lora_expand(x.data(), rows, part, out.data(), width, 0, width);
             });
        const int32_t ids[] = {0, (int32_t)width - 1, 17};
        both("lora_lookup", [&](const Kernels& k, std::vector<float>& out) { k.lora_lookup(part, ids, 3, 1.5f, out.data()); });
    }
    both("exponentials", [&](const Kernels& k, std::vector<float>& out) {
        float best;
        const int64_t at = k.argmax(x.data(), rows * width, &best);
        const double total = k.exponentials(x.data(), rows * width, best, 2.0f, out.data());
        out[0] += (float)at + (float)total;
    });
}

// The same keys and values, stored and read by each of the two.
void check_attention(const Kernels& ours, const Kernels& plain, KVFormat format, int32_t heads, int32_t window, float cap) {
    const int32_t dim = 70, blocks = 6, block_size = 4;
    const int64_t tokens = blocks * block_size, groups = group_count(dim);
    const std::vector<float> q = normal(2 * heads * dim), keys = normal(tokens * dim), values = normal(tokens * dim);
    const int32_t table[] = {3, 0, 5, 1, 2, 4};
    const AttentionRow row{0, 2, 22, 0, table};
    const auto attend = [&](const Kernels& kernels) {
        std::vector<float> stored_keys(tokens * dim), stored_values(tokens * dim), out(q.size());  // room for any format
        std::vector<float> key_scales(tokens * groups), value_scales(tokens);
        const CachedLayer key_layer{stored_keys.data(), key_scales.data(), kGroup};
        const CachedLayer value_layer{stored_values.data(), value_scales.data(), dim};
        kernels.store_heads(keys.data(), tokens, dim, format, key_layer, 0);
        kernels.store_heads(values.data(), tokens, dim, format, value_layer, 0);
        const Attention args{q.data(), out.data(), key_layer, value_layer, format, heads, 1,
                             dim,      block_size, window,    0.3f,        cap,    2};
        std::vector<float> scratch(attention_scratch(args, 22));
        kernels.attention(args, row, scratch.data(), 0, 1);
        return out;
    };
    report("attention", attend(ours), attend(plain), 2e-5f);
}

}  // namespace

int main(int count, char** arguments) {
    const Kernels* ours = count > 1 ? find_kernels(arguments[1]) : nullptr;
    const Kernels* plain = find_kernels("plain");
    if (!ours) return std::printf("%s: not on this machine\n", count > 1 ? arguments[1] : "?"), 2;
    std::printf("%s against plain; best here: %s\n", ours->name, find_kernels(nullptr)->name);
    check_quantization(*ours, *plain);
    check_products(*ours, *plain, Format::w8, false, "w8");
    check_products(*ours, *plain, Format::w4, true, "w4");
    check_products(*ours, *plain, Format::w4, false, "w4 without minima");
    check_products(*ours, *plain, Format::w5, true, "w5");
    check_products(*ours, *plain, Format::w5, false, "w5 without minima");
    check_products(*ours, *plain, Format::bf16, false, "bf16");
    check_products(*ours, *plain, Format::f32, false, "f32");
    check_rows(*ours, *plain);
    for (const KVFormat format : {KVFormat::f32, KVFormat::bf16, KVFormat::int8}) {
        for (const int32_t heads : {1, 2, 4, 7}) check_attention(*ours, *plain, format, heads, 0, 0);
        check_attention(*ours, *plain, format, 4, 7, 1.5f);
    }
    return failures ? 1 : 0;
}
