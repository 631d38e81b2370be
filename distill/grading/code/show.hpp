// Writes results of functions as JSON; maps as sorted lists of pairs, bytes of texts as characters.
#include <cmath>
#include <cstdio>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>
namespace distill_shown {
inline void show(std::string& out, const std::string& value) {
  out += '"';
  for (unsigned char one : value) {
    char code[8];
    if (one < 32 || one > 126 || one == '"' || one == '\\') {
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(one));
      out += code;
    } else {
      out += static_cast<char>(one);
    }
  }
  out += '"';
}
inline void show(std::string& out, const char* value) { show(out, std::string(value)); }
template <class T> std::enable_if_t<std::is_arithmetic_v<T>> show(std::string& out, T value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += value ? "true" : "false";
  } else if constexpr (std::is_integral_v<T>) {
    out += std::to_string(value);
  } else {
    char text[64];
    const double wide = static_cast<double>(value);
    if (std::isnan(wide)) out += "NaN";
    else if (std::isinf(wide)) out += wide > 0 ? "Infinity" : "-Infinity";
    else { std::snprintf(text, sizeof text, "%.17g", wide); out += text; }
  }
}
template <class T> void show(std::string& out, const std::vector<T>& value);
template <class T> void show(std::string& out, const std::list<T>& value);
template <class T> void show(std::string& out, const std::deque<T>& value);
template <class T> void show(std::string& out, const std::set<T>& value);
template <class K, class V> void show(std::string& out, const std::map<K, V>& value);
template <class K, class V> void show(std::string& out, const std::unordered_map<K, V>& value);
template <class A, class B> void show(std::string& out, const std::pair<A, B>& value);
template <class... Parts> void show(std::string& out, const std::tuple<Parts...>& value);
template <class T> void show(std::string& out, const std::optional<T>& value);
template <class Items> void show_items(std::string& out, const Items& items) {
  out += '[';
  bool is_first = true;
  for (const auto& one : items) {
    if (!is_first) out += ',';
    is_first = false;
    show(out, one);
  }
  out += ']';
}
template <class T> void show(std::string& out, const std::vector<T>& value) {
  if constexpr (std::is_same_v<T, bool>) {
    std::deque<bool> copy(value.begin(), value.end());
    show_items(out, copy);
  } else {
    show_items(out, value);
  }
}
template <class T> void show(std::string& out, const std::list<T>& value) { show_items(out, value); }
template <class T> void show(std::string& out, const std::deque<T>& value) { show_items(out, value); }
template <class T> void show(std::string& out, const std::set<T>& value) { show_items(out, value); }
template <class K, class V> void show(std::string& out, const std::map<K, V>& value) { show_items(out, value); }
template <class K, class V> void show(std::string& out, const std::unordered_map<K, V>& value) {
  show_items(out, std::map<K, V>(value.begin(), value.end()));
}
template <class A, class B> void show(std::string& out, const std::pair<A, B>& value) {
  out += '['; show(out, value.first); out += ','; show(out, value.second); out += ']';
}
template <class... Parts> void show(std::string& out, const std::tuple<Parts...>& value) {
  out += '[';
  bool is_first = true;
  std::apply([&](const auto&... part) { ((out += is_first ? "" : ",", is_first = false, show(out, part)), ...); }, value);
  out += ']';
}
template <class T> void show(std::string& out, const std::optional<T>& value) {
  if (value) show(out, *value); else out += "null";
}
}  // namespace distill_shown
