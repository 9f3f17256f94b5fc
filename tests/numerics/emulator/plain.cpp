// candle's own kernels that the program uses, as plain loops: what their names say, with numbers in `f32` between reading and
// writing.
#include "driver.h"

#include "cuda_bf16.h"
#include "cuda_fp16.h"

#include <vector>

using emulator::fail;
using emulator::read;

namespace {

enum class Type { F32, F64, BF16, F16, U32, I64, U8 };

Type type_of(const std::string &name) {
    const char *names[] = {"f32", "f64", "bf16", "f16", "u32", "i64", "u8"};
    for (int type = 0; type < 7; type++)
        if (name == names[type]) return Type(type);
    fail("numbers of type " + name);
}

// Numbers of one of candle's types.
struct Values {
    Values(const std::string &name, unsigned char *memory) : type(type_of(name)), memory(memory) {}

    Type type;
    unsigned char *memory;

    template <class T> T *as() const { return reinterpret_cast<T *>(memory); }

    double get(size_t index) const {
        switch (type) {
        case Type::F32: return as<float>()[index];
        case Type::F64: return as<double>()[index];
        case Type::BF16: return __bfloat162float(as<__nv_bfloat16>()[index]);
        case Type::F16: return __half2float(as<__half>()[index]);
        case Type::U32: return as<uint32_t>()[index];
        case Type::I64: return double(as<int64_t>()[index]);
        default: return as<uint8_t>()[index];
        }
    }

    void set(size_t index, double value) const {
        switch (type) {
        case Type::F32: as<float>()[index] = float(value); break;
        case Type::F64: as<double>()[index] = value; break;
        case Type::BF16: as<__nv_bfloat16>()[index] = __float2bfloat16(float(value)); break;
        case Type::F16: as<__half>()[index] = __float2half(float(value)); break;
        case Type::U32: as<uint32_t>()[index] = uint32_t(value); break;
        case Type::I64: as<int64_t>()[index] = int64_t(value); break;
        default: as<uint8_t>()[index] = uint8_t(value);
        }
    }
};

struct Arguments {
    void *const *list;

    size_t size(int index) const { return read<size_t>(list[index]); }
    unsigned char *address(int index) const { return read<unsigned char *>(list[index]); }
    Values values(int index, const std::string &type) const { return {type, address(index)}; }
    // A number handed over as it is.
    double number(int index, const std::string &type) const { return Values{type, static_cast<unsigned char *>(list[index])}.get(0); }
};

// Where the elements of a tensor lie, by candle's list of sizes and steps; one after the other without it.
struct Places {
    size_t dimensions;
    const size_t *sizes, *steps;

    size_t operator()(size_t index) const {
        if (!sizes) return index;
        size_t place = 0;
        for (size_t dimension = dimensions; dimension-- > 0;) {
            place += index % sizes[dimension] * steps[dimension];
            index /= sizes[dimension];
        }
        return place;
    }
};

// The `which`-th steps after the sizes.
Places places(const Arguments &arguments, int dimensions_at, int which = 1) {
    size_t dimensions = arguments.size(dimensions_at);
    auto *info = reinterpret_cast<const size_t *>(arguments.address(dimensions_at + 1));
    return {dimensions, info, info ? info + which * dimensions : nullptr};
}

using Unary = double (*)(double);
using Binary = double (*)(double, double);

Unary unary(const std::string &name) {
    if (name == "ucopy") return [](double x) { return x; };
    if (name == "uexp") return [](double x) { return std::exp(x); };
    if (name == "ulog") return [](double x) { return std::log(x); };
    if (name == "usqr") return [](double x) { return x * x; };
    if (name == "usqrt") return [](double x) { return std::sqrt(x); };
    if (name == "uneg") return [](double x) { return -x; };
    if (name == "urecip") return [](double x) { return 1.0 / x; };
    if (name == "uabs") return [](double x) { return std::fabs(x); };
    return nullptr;
}

Binary binary(const std::string &name) {
    if (name == "badd") return [](double x, double y) { return x + y; };
    if (name == "bsub") return [](double x, double y) { return x - y; };
    if (name == "bmul") return [](double x, double y) { return x * y; };
    if (name == "bdiv") return [](double x, double y) { return x / y; };
    if (name == "bmaximum") return [](double x, double y) { return std::fmax(x, y); };
    if (name == "bminimum") return [](double x, double y) { return std::fmin(x, y); };
    return nullptr;
}

void select(const Arguments &arguments, const std::string &type) {
    Values ids = arguments.values(3, "u32"), from = arguments.values(4, type), to = arguments.values(5, type);
    size_t from_size = arguments.size(7), id_count = arguments.size(8), right = arguments.size(9);
    for (size_t index = 0; index < arguments.size(0); index++) {
        size_t left = index / (id_count * right), id = size_t(ids.get(index / right % id_count));
        if (id >= from_size) fail("row " + std::to_string(id) + " of " + std::to_string(from_size));
        to.set(index, from.get((left * from_size + id) * right + index % right));
    }
}

// `count` results, each of `each` elements that follow each other.
void reduce(const Arguments &arguments, const std::string &type, size_t count, bool is_sum) {
    size_t each = arguments.size(1);
    Places place = places(arguments, 2);
    Values from = arguments.values(4, type), to = arguments.values(5, type);
    for (size_t result = 0; result < count; result++) {
        double found = is_sum ? 0.0 : -INFINITY;
        for (size_t index = result * each; index < (result + 1) * each; index++) {
            double value = from.get(place(index));
            found = is_sum ? found + value : std::fmax(found, value);
        }
        to.set(result, found);
    }
}

} // namespace

namespace driver {

bool run_plain(const std::string &name, unsigned blocks, void *const *list) {
    Arguments arguments{list};
    size_t cut = name.rfind('_');
    if (cut == std::string::npos) return false;
    std::string kind = name.substr(0, cut), type = name.substr(cut + 1);
    if (kind == "is_u32") select(arguments, type);
    else if (kind == "fast_sum" || kind == "fast_max") reduce(arguments, type, blocks, kind == "fast_sum");
    else if (kind == "fast_sum_small") reduce(arguments, type, arguments.size(0), true);
    else if (kind == "affine") {
        Values from = arguments.values(3, type), to = arguments.values(4, type);
        Places place = places(arguments, 1);
        double factor = arguments.number(5, type), term = arguments.number(6, type);
        for (size_t index = 0; index < arguments.size(0); index++) to.set(index, (from.memory ? from.get(place(index)) : to.get(index)) * factor + term);
    } else if (kind == "const_set") {
        Values to = arguments.values(4, type);
        Places place = places(arguments, 1);
        for (size_t index = 0; index < arguments.size(0); index++) to.set(place(index), arguments.number(3, type));
    } else if (kind == "copy2d") {
        Values from = arguments.values(0, type), to = arguments.values(1, type);
        auto number = [&](int index) { return size_t(read<uint32_t>(list[index])); };
        for (size_t row = 0; row < number(2); row++)
            for (size_t column = 0; column < number(3); column++) to.set(row * number(5) + column, from.get(row * number(4) + column));
    } else if (kind.rfind("cast_", 0) == 0) {
        Values from = arguments.values(3, kind.substr(5)), to = arguments.values(4, type);
        Places place = places(arguments, 1);
        for (size_t index = 0; index < arguments.size(0); index++) to.set(index, from.get(place(index)));
    } else if (Binary operation = binary(kind)) {
        Values left = arguments.values(3, type), right = arguments.values(4, type), to = arguments.values(5, type);
        Places of_left = places(arguments, 1, 1), of_right = places(arguments, 1, 2);
        for (size_t index = 0; index < arguments.size(0); index++) to.set(index, operation(left.get(of_left(index)), right.get(of_right(index))));
    } else if (Unary operation = unary(kind)) {
        Values from = arguments.values(3, type), to = arguments.values(4, type);
        Places place = places(arguments, 1);
        for (size_t index = 0; index < arguments.size(0); index++) to.set(index, operation(from.memory ? from.get(place(index)) : to.get(index)));
    } else return false;
    return true;
}

} // namespace driver
