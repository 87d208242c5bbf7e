// Prints which proxy golang.org/x/net/http/httpproxy, which kubectl uses, chooses: ../proxies.tsv is what
// `go run .` prints. Lines of NO_PROXY list the servers that are reached without the proxy; the others have
// environment, server and proxy ("-" for none, "!" for a refusal).
package main

import (
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

const given = "http://proxy.example:3128"

var servers = []string{
	"https://api.example.com:6443", "https://example.com", "https://www.example.com", "https://notexample.com",
	"https://example.com.evil.org", "https://example.com:6443", "http://example.com:8080", "http://example.com",
	"https://localhost:6443", "https://localhost.localdomain", "https://127.0.0.1:6443", "https://127.9.9.9",
	"https://[::1]:6443", "https://[::ffff:127.0.0.1]", "https://0.0.0.0", "https://10.1.2.3:6443", "https://10.1.2.3",
	"https://11.1.2.3:6443", "https://192.168.1.7", "https://172.16.0.1:6443", "https://[2001:db8::1]:6443",
	"https://[2001:db8:1::1]", "https://[2001:db9::1]", "https://[fe80::1%25eth0]:6443", "https://[::ffff:10.1.2.3]",
	"https://kubernetes.default.svc", "https://xn--bcher-kva.example", "https://a.xn--bcher-kva.example", "https://com",
	"https://kubernetes", "https://x1.2.3.4", "https://example.com.:6443",
}

var rules = []string{
	"", "*", "example.com", ".example.com", "*.example.com", "EXAMPLE.com", " example.com , 10.0.0.0/8 ",
	"example.com:6443", ".example.com:6443", "*.example.com:6443", "example.com:443", "example.com:", "example.com:https",
	"ample.com", "com", ".com", "api", "10.1.2.3", "10.1.2.3:6443", "10.1.2.3:443", "10.1.2", "10.", "10.0.0.0/8",
	"10.1.2.3/8", "10.1.2.3/32", "10.0.0.0/8:6443", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "0.0.0.0/0", "10.0.0.0/08", "::/0",
	"2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:6443", "[2001:db8::1]:443", "2001:db8::/32", "2001:DB8::/32",
	"[2001:db8::/32]", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3", "fe80::1", "fe80::/10", "fe80::1%eth0", "localhost",
	"127.0.0.0/8", "*,example.com", "example.com,*", "*example.com", "foo*", ",,", ", ,example.com", "svc", ".svc",
	".cluster.local,.svc,10.0.0.0/8", "bücher.example", ".bücher.example", "[]:80", ":80", ".", "*.", "a:b:c", "example.com.",
	"192.168.0.0/16,172.16.0.0/12", "010.1.2.3", "10.1.2.3.", "http://example.com", "user@example.com",
	"kubernetes.default.svc:443", "1.2.3.4", "[10.1.2.3]:6443", "[example.com]:6443", "[example.com]",
}

var environments = []string{
	"HTTPS_PROXY=http://proxy.example:3128", "https_proxy=http://proxy.example:3128",
	"HTTPS_PROXY=http://upper.example:1 https_proxy=http://lower.example:2", "HTTP_PROXY=http://proxy.example:3128",
	"http_proxy=http://proxy.example:3128", "ALL_PROXY=http://proxy.example:3128", "HTTPS_PROXY=proxy.example:3128",
	"HTTPS_PROXY=proxy.example", "HTTPS_PROXY=10.0.0.1:3128", "HTTPS_PROXY=[2001:db8::5]:3128",
	"HTTPS_PROXY=http://[2001:db8::5]:3128", "HTTPS_PROXY=https://proxy.example", "HTTPS_PROXY=https://proxy.example:8443/",
	"HTTPS_PROXY=socks5://proxy.example:1080", "HTTPS_PROXY=socks5h://proxy.example", "HTTPS_PROXY=HTTP://Proxy.Example:3128",
	"HTTPS_PROXY=http://user:pass@proxy.example:3128", "HTTPS_PROXY=user:pass@proxy.example:3128",
	"HTTPS_PROXY=http://us%40er:p%3Ass%25@proxy.example:3128", "HTTPS_PROXY=http://user@proxy.example:3128",
	"HTTPS_PROXY=http://proxy.example:3128 no_proxy=example.com",
	"HTTPS_PROXY=http://proxy.example:3128 NO_PROXY=other.org no_proxy=example.com",
	"HTTP_PROXY=http://proxy.example:3128 REQUEST_METHOD=GET", "HTTPS_PROXY=http://proxy.example:3128 REQUEST_METHOD=GET",
}

func choose(env map[string]string, server string) string {
	any := func(name string) string {
		if value := env[name]; value != "" {
			return value
		}
		return env[strings.ToLower(name)]
	}
	config := httpproxy.Config{
		HTTPProxy:  any("HTTP_PROXY"),
		HTTPSProxy: any("HTTPS_PROXY"),
		NoProxy:    any("NO_PROXY"),
		CGI:        env["REQUEST_METHOD"] != "",
	}
	parsed, err := url.Parse(server)
	if err != nil {
		panic(err)
	}
	proxy, err := config.ProxyFunc()(parsed)
	switch {
	case err != nil:
		return "!"
	case proxy == nil:
		return "-"
	}
	password, _ := proxy.User.Password()
	return fmt.Sprintf("%s %s %s %s %s", proxy.Scheme, strings.ToLower(proxy.Hostname()), orNone(proxy.Port()),
		orNone(proxy.User.Username()), orNone(password))
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func main() {
	for _, rule := range rules {
		env := map[string]string{"HTTPS_PROXY": given, "HTTP_PROXY": given, "NO_PROXY": rule}
		exempt := []string{}
		for _, server := range servers {
			if choose(env, server) == "-" {
				exempt = append(exempt, server)
			}
		}
		fmt.Printf("NO_PROXY\t%s\t%s\n", rule, strings.Join(exempt, " "))
	}
	for _, environment := range environments {
		env := map[string]string{}
		for _, pair := range strings.Fields(environment) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		for _, server := range []string{"https://example.com:6443", "http://example.com"} {
			fmt.Printf("%s\t%s\t%s\n", environment, server, choose(env, server))
		}
	}
}
