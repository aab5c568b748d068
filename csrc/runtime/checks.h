// How every argument is refused: Python sees a ValueError.
#pragma once

#include <stdexcept>

namespace intaglio {

inline void check(bool good, const char* message) {
    if (!good) throw std::invalid_argument(message);
}

}  // namespace intaglio
